package store

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Installation says whose database this is. There is one for each database.
type Installation struct {
	// ID is random. NATS has it too, with the streams.
	ID string `bson:"id"`
	// Prefix is the nats.prefix of its workers.
	Prefix string `bson:"prefix"`
}

var installationDoc = bson.D{{Key: "_id", Value: "installation"}}

// Installation returns whose database this is; ErrNotFound: no worker has said so
// yet.
func (s *Store) Installation(ctx context.Context) (Installation, error) {
	var i Installation
	err := s.meta.FindOne(ctx, installationDoc).Decode(&i)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return Installation{}, ErrNotFound
	}
	if err != nil {
		return Installation{}, fmt.Errorf("reading the identity of the installation: %w", err)
	}
	return i, nil
}

// Settle records whose database this is, unless that is known already, and
// returns what holds. It may be called by many workers at once.
func (s *Store) Settle(ctx context.Context, i Installation) (Installation, error) {
	_, err := s.meta.UpdateOne(ctx, installationDoc, bson.D{{Key: "$setOnInsert", Value: i}}, options.UpdateOne().SetUpsert(true))
	if err != nil && !mongo.IsDuplicateKeyError(err) { // another was first
		return Installation{}, fmt.Errorf("storing the identity of the installation: %w", err)
	}
	return s.Installation(ctx)
}

// Rename changes the prefix of the installation whose database this is.
func (s *Store) Rename(ctx context.Context, prefix string) error {
	if _, err := s.meta.UpdateOne(ctx, installationDoc, bson.D{{Key: "$set", Value: bson.D{{Key: "prefix", Value: prefix}}}}); err != nil {
		return fmt.Errorf("changing the prefix of the installation: %w", err)
	}
	return nil
}
