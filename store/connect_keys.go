package store

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/store/envelope"
)

// ConnectKey is a key to which publishers seal connects. The key with the
// highest sequence number is current.
type ConnectKey struct {
	Sequence int64 `bson:"_id"`
	// KeyID is the thumbprint of the public part.
	KeyID string `bson:"kid"`
	// Public is the public part as a JWK, for people who look at the database.
	// Workers derive it from Sealed instead.
	Public string `bson:"public"`
	// Sealed is the private part.
	Sealed    envelope.Blob `bson:"sealed"`
	CreatedAt time.Time     `bson:"createdAt"`
}

// Binding is what the private part is sealed to.
func (k ConnectKey) Binding() envelope.Binding {
	return envelope.Binding{Purpose: envelope.PurposeConnectKey, Grant: k.KeyID, Version: k.Sequence}
}

// ConnectKeys returns the keys, newest first.
func (s *Store) ConnectKeys(ctx context.Context) ([]ConnectKey, error) {
	cursor, err := s.connectKeys.Find(ctx, bson.D{}, options.Find().SetSort(bson.D{{Key: "_id", Value: -1}}))
	return decodeAll[ConnectKey](ctx, cursor, err, "reading the connect keys")
}

// AddConnectKey stores a key. If several workers add the same sequence number, the
// first succeeds and the others get ErrConflict.
func (s *Store) AddConnectKey(ctx context.Context, key ConnectKey) error {
	_, err := s.connectKeys.InsertOne(ctx, key)
	if duplicate(err) {
		return ErrConflict
	}
	return wrap(err, "storing a connect key")
}

// DeleteConnectKey deletes a key. What was sealed to it never opens again.
func (s *Store) DeleteConnectKey(ctx context.Context, sequence int64) error {
	_, err := s.connectKeys.DeleteOne(ctx, byID(sequence))
	return wrap(err, "deleting connect key %d", sequence)
}
