package store

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/store/audit"
)

// PutAuditHead replaces the stored head of a chain of the audit log.
func (s *Store) PutAuditHead(ctx context.Context, h audit.Head) error {
	_, err := s.auditHeads.ReplaceOne(ctx, byID(h.Chain), h, options.Replace().SetUpsert(true))
	return wrap(err, "storing an audit head")
}

// AuditHeads returns the heads of all chains.
func (s *Store) AuditHeads(ctx context.Context) ([]*audit.Head, error) {
	cursor, err := s.auditHeads.Find(ctx, bson.D{})
	return decodeAll[*audit.Head](ctx, cursor, err, "reading the audit heads")
}

// PurgeAuditHeads deletes the heads of chains whose messages are past their
// retention.
func (s *Store) PurgeAuditHeads(ctx context.Context, now time.Time) error {
	_, err := s.auditHeads.DeleteMany(ctx, bson.D{{Key: "purgeAt", Value: bson.D{{Key: "$lt", Value: Milli(now)}}}})
	return wrap(err, "dropping old audit heads")
}
