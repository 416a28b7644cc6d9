package store

import (
	"context"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/store/audit"
)

// PutAuditHead keeps the head of a chain of the audit log in place of the one
// before.
func (s *Store) PutAuditHead(ctx context.Context, h audit.Head) error {
	if _, err := s.auditHeads.ReplaceOne(ctx, bson.D{{Key: "_id", Value: h.Chain}}, h, options.Replace().SetUpsert(true)); err != nil {
		return fmt.Errorf("storing an audit head: %w", err)
	}
	return nil
}

// AuditHeads returns the heads of all chains.
func (s *Store) AuditHeads(ctx context.Context) ([]*audit.Head, error) {
	cursor, err := s.auditHeads.Find(ctx, bson.D{})
	return collect[audit.Head](ctx, cursor, err, "reading the audit heads")
}

// PurgeAuditHeads drops the heads of chains whose messages are past their
// retention.
func (s *Store) PurgeAuditHeads(ctx context.Context, now time.Time) error {
	if _, err := s.auditHeads.DeleteMany(ctx, bson.D{{Key: "purgeAt", Value: bson.D{{Key: "$lt", Value: Milli(now)}}}}); err != nil {
		return fmt.Errorf("dropping old audit heads: %w", err)
	}
	return nil
}
