package store

import (
	"context"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Installation identifies the workers to which a database belongs.
type Installation struct {
	// ID is random. The streams in NATS carry it too.
	ID string `bson:"id"`
	// Prefix is the nats.prefix of the workers.
	Prefix string `bson:"prefix"`
}

var installationDoc = byID("installation")

// Installation returns the installation that owns the database. ErrNotFound: no
// worker has claimed it yet.
func (s *Store) Installation(ctx context.Context) (Installation, error) {
	return decodeOne[Installation](s.meta.FindOne(ctx, installationDoc), ErrNotFound, "reading the identity of the installation")
}

// ClaimInstallation claims the database for an installation, unless it has an owner, and
// returns the owner. Many workers may call it at once.
func (s *Store) ClaimInstallation(ctx context.Context, i Installation) (Installation, error) {
	_, err := s.meta.UpdateOne(ctx, installationDoc, bson.D{{Key: "$setOnInsert", Value: i}}, options.UpdateOne().SetUpsert(true))
	if err != nil && !mongo.IsDuplicateKeyError(err) { // another was first
		return Installation{}, fmt.Errorf("storing the identity of the installation: %w", err)
	}
	return s.Installation(ctx)
}

// Rename changes the prefix of the installation that owns the database.
func (s *Store) Rename(ctx context.Context, prefix string) error {
	_, err := s.meta.UpdateOne(ctx, installationDoc, bson.D{{Key: "$set", Value: bson.D{{Key: "prefix", Value: prefix}}}})
	return wrap(err, "changing the prefix of the installation")
}
