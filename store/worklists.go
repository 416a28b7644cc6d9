package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// The lists below are what reconciliation works through. Each is bounded and
// has an index.

// OtherStreams returns what grants name as the streams of their schedules and is
// none of these. There are few: "" where no schedule was made, and streams of
// before.
func (s *Store) OtherStreams(ctx context.Context, streams []string) ([]string, error) {
	var all []string
	// From one to the next, each by a single look into the index: there may be
	// millions of grants of each.
	for from := (bson.E{Key: "$gte", Value: ""}); ; from = (bson.E{Key: "$gt", Value: all[len(all)-1]}) {
		var g struct {
			Due struct {
				Stream string `bson:"stream"`
			} `bson:"due"`
		}
		err := s.grants.FindOne(ctx,
			bson.D{{Key: "due.stream", Value: bson.D{from, {Key: "$nin", Value: streams}}}},
			options.FindOne().SetSort(bson.D{{Key: "due.stream", Value: 1}}).SetProjection(bson.D{{Key: "due.stream", Value: 1}, {Key: "_id", Value: 0}}),
		).Decode(&g)
		if errors.Is(err, mongo.ErrNoDocuments) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("listing the streams of schedules: %w", err)
		}
		all = append(all, g.Due.Stream)
	}
}

// ScheduledIn returns grants due before the horizon that name a stream for their
// schedule, nearest first, without the first skip of them.
func (s *Store) ScheduledIn(ctx context.Context, stream string, horizon time.Time, skip, limit int) ([]*Grant, error) {
	return s.list(ctx, "listing grants without a schedule", "due.at", limit, bson.D{
		{Key: "due.stream", Value: stream},
		{Key: "due.at", Value: bson.D{{Key: "$lt", Value: Milli(horizon)}}},
	}, options.Find().SetSkip(int64(skip)))
}

// Overdue returns grants that were due after one time and before another,
// longest overdue first.
func (s *Store) Overdue(ctx context.Context, after, before time.Time, limit int) ([]*Grant, error) {
	return s.list(ctx, "listing overdue grants", "due.at", limit, bson.D{
		{Key: "due.at", Value: bson.D{{Key: "$gt", Value: Milli(after)}, {Key: "$lt", Value: Milli(before)}}},
	})
}

// Unsent returns grants whose outbox has waited since before a time, longest
// first.
func (s *Store) Unsent(ctx context.Context, before time.Time, limit int) ([]*Grant, error) {
	return s.list(ctx, "listing unsent events", "outbox.since", limit, bson.D{
		{Key: "outbox.since", Value: bson.D{{Key: "$lt", Value: Milli(before)}}},
	})
}

// Purgeable returns grants whose record may go.
func (s *Store) Purgeable(ctx context.Context, now time.Time, limit int) ([]*Grant, error) {
	return s.list(ctx, "listing records to drop", "purgeAt", limit, bson.D{
		{Key: "purgeAt", Value: bson.D{{Key: "$lt", Value: Milli(now)}}},
	})
}

func (s *Store) list(ctx context.Context, doing, sort string, limit int, filter bson.D, more ...options.Lister[options.FindOptions]) ([]*Grant, error) {
	order := bson.D{{Key: sort, Value: 1}}
	if sort != "_id" {
		order = append(order, bson.E{Key: "_id", Value: 1})
	}
	opts := append(more, options.Find().SetSort(order).SetLimit(int64(limit)))
	cursor, err := s.grants.Find(ctx, filter, opts...)
	return collect[Grant](ctx, cursor, err, doing)
}

// Poked records that an overdue schedule was made again, if the document still
// has the revision of g.
func (s *Store) Poked(ctx context.Context, g *Grant, now time.Time) error {
	_, err := s.grants.UpdateOne(ctx, revision(g.ID, g.Rev), bson.D{
		{Key: "$inc", Value: bson.D{{Key: "due.pokes", Value: 1}}},
		{Key: "$set", Value: bson.D{{Key: "due.pokedAt", Value: Milli(now)}}},
	})
	if err != nil {
		return fmt.Errorf("recording a schedule made again for grant %s: %w", g.ID, err)
	}
	return nil
}
