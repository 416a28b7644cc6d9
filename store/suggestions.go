package store

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Suggestions for what somebody is typing: an index alone answers each query.

// GrantsBeginning returns up to limit grants whose ids begin so, with their ids, users,
// brokers and states only.
func (s *Store) GrantsBeginning(ctx context.Context, with string, limit int) ([]*Grant, error) {
	cursor, err := s.grants.Find(ctx, bson.D{{Key: "_id", Value: beginning(with)}}, options.Find().SetSort(bson.D{{Key: "_id", Value: 1}}).SetLimit(int64(limit)).
		SetProjection(bson.D{{Key: "user", Value: 1}, {Key: "broker", Value: 1}, {Key: "state", Value: 1}}))
	return decodeAll[*Grant](ctx, cursor, err, "looking for grants by their ids")
}

// UsersBeginning returns up to limit users with grants whose ids begin so.
func (s *Store) UsersBeginning(ctx context.Context, with string, limit int) ([]string, error) {
	return s.distinct(ctx, nil, "user", with, limit)
}

// BrokersBeginning returns up to limit broker types of active grants that begin so.
func (s *Store) BrokersBeginning(ctx context.Context, with string, limit int) ([]string, error) {
	return s.distinct(ctx, bson.D{{Key: "state", Value: Active}}, "broker", with, limit)
}

// distinct returns texts that grants have in a field, each found by a single look into an
// index on what the filter names and the field: millions of grants may share one.
func (s *Store) distinct(ctx context.Context, filter bson.D, field, with string, limit int) (all []string, err error) {
	one := options.FindOne().SetSort(bson.D{{Key: field, Value: 1}}).SetProjection(bson.D{{Key: field, Value: 1}, {Key: "_id", Value: 0}})
	for within := beginning(with); len(all) < limit; within[0] = (bson.E{Key: "$gt", Value: all[len(all)-1]}) {
		found, err := s.grants.FindOne(ctx, append(filter[:len(filter):len(filter)], bson.E{Key: field, Value: within}), one).Raw()
		if errors.Is(err, mongo.ErrNoDocuments) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("looking for a %s: %w", field, err)
		}
		all = append(all, found.Lookup(field).StringValue())
	}
	return all, nil
}

// beginning matches texts that begin so.
func beginning(with string) bson.D {
	return bson.D{{Key: "$gte", Value: with}, {Key: "$lt", Value: with + lastID}}
}
