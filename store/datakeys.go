package store

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/store/envelope"
)

// PutKey implements envelope.KeyStore.
func (s *Store) PutKey(ctx context.Context, key envelope.WrappedKey) error {
	if _, err := s.dataKeys.InsertOne(ctx, key); err != nil {
		return fmt.Errorf("storing data key %s: %w", key.ID, err)
	}
	return nil
}

// Key implements envelope.KeyStore.
func (s *Store) Key(ctx context.Context, id string) (envelope.WrappedKey, error) {
	var key envelope.WrappedKey
	err := s.dataKeys.FindOne(ctx, bson.D{{Key: "_id", Value: id}}).Decode(&key)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return key, envelope.ErrUnknownKey
	}
	if err != nil {
		return key, fmt.Errorf("reading data key %s: %w", id, err)
	}
	return key, nil
}

// StreamIdentity returns the identity of the schedule stream that was last
// remembered, or "".
func (s *Store) StreamIdentity(ctx context.Context) (string, error) {
	var doc struct {
		Identity string `bson:"identity"`
	}
	err := s.meta.FindOne(ctx, bson.D{{Key: "_id", Value: "refresh-stream"}}).Decode(&doc)
	if err != nil && !errors.Is(err, mongo.ErrNoDocuments) {
		return "", fmt.Errorf("reading the stream's identity: %w", err)
	}
	return doc.Identity, nil
}

// RememberStream stores the identity of the schedule stream.
func (s *Store) RememberStream(ctx context.Context, identity string) error {
	_, err := s.meta.UpdateOne(ctx, bson.D{{Key: "_id", Value: "refresh-stream"}},
		bson.D{{Key: "$set", Value: bson.D{{Key: "identity", Value: identity}}}}, options.UpdateOne().SetUpsert(true))
	if err != nil {
		return fmt.Errorf("storing the stream's identity: %w", err)
	}
	return nil
}
