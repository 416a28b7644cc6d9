package store

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

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
