package store

import (
	"context"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/store/envelope"
)

// ConnectKey is a key that publishers seal connects to. The key with the
// highest sequence number is the one to use.
type ConnectKey struct {
	Sequence int64 `bson:"_id"`
	// KeyID is the thumbprint of the public part.
	KeyID string `bson:"kid"`
	// Public is the public part as a JWK, for whoever looks at the database.
	// Only what Sealed opens to is believed.
	Public string `bson:"public"`
	// Sealed is the private part.
	Sealed    envelope.Blob `bson:"sealed"`
	CreatedAt time.Time     `bson:"createdAt"`
}

// Binding is what the private part is sealed to.
func (k ConnectKey) Binding() envelope.Binding {
	return envelope.Binding{Purpose: envelope.PurposeConnectKey, Grant: k.KeyID, Version: k.Sequence}
}

// ConnectKeys returns the keys, the newest first.
func (s *Store) ConnectKeys(ctx context.Context) ([]ConnectKey, error) {
	cursor, err := s.connectKeys.Find(ctx, bson.D{}, options.Find().SetSort(bson.D{{Key: "_id", Value: -1}}))
	if err != nil {
		return nil, fmt.Errorf("reading the connect keys: %w", err)
	}
	var out []ConnectKey
	if err := cursor.All(ctx, &out); err != nil {
		return nil, fmt.Errorf("reading the connect keys: %w", err)
	}
	return out, nil
}

// AddConnectKey stores a key. Of several workers who add one with the same
// sequence number, the first succeeds and the others get ErrConflict.
func (s *Store) AddConnectKey(ctx context.Context, key ConnectKey) error {
	_, err := s.connectKeys.InsertOne(ctx, key)
	if duplicate(err) {
		return ErrConflict
	}
	if err != nil {
		return fmt.Errorf("storing a connect key: %w", err)
	}
	return nil
}

// DeleteConnectKey deletes a key. What was sealed to it opens no more.
func (s *Store) DeleteConnectKey(ctx context.Context, sequence int64) error {
	if _, err := s.connectKeys.DeleteOne(ctx, bson.D{{Key: "_id", Value: sequence}}); err != nil {
		return fmt.Errorf("deleting connect key %d: %w", sequence, err)
	}
	return nil
}
