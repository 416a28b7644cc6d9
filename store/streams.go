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

// The database remembers the streams of NATS, so that a broker that has lost
// them is noticed.

var streamsDoc = bson.D{{Key: "_id", Value: "refresh-stream"}}

// StreamIdentity returns the identity of the schedule stream that was last
// remembered, or "".
func (s *Store) StreamIdentity(ctx context.Context) (string, error) {
	var doc struct {
		Identity string `bson:"identity"`
	}
	err := s.meta.FindOne(ctx, streamsDoc).Decode(&doc)
	if err != nil && !errors.Is(err, mongo.ErrNoDocuments) {
		return "", fmt.Errorf("reading the stream's identity: %w", err)
	}
	return doc.Identity, nil
}

// RememberStream stores the identity of the schedule stream. It clears the
// suspicion of SuspectStreams: what exists is not gone.
func (s *Store) RememberStream(ctx context.Context, identity string) error {
	_, err := s.meta.UpdateOne(ctx, streamsDoc,
		bson.D{{Key: "$set", Value: bson.D{{Key: "identity", Value: identity}, {Key: "suspect", Value: false}}}}, options.UpdateOne().SetUpsert(true))
	if err != nil {
		return fmt.Errorf("storing the stream's identity: %w", err)
	}
	return nil
}

// SeeStreams records that a worker sees the schedule stream that is remembered. It
// does nothing where another is.
func (s *Store) SeeStreams(ctx context.Context, identity string, at time.Time) error {
	filter := append(bson.D{{Key: "identity", Value: identity}}, streamsDoc...)
	if _, err := s.meta.UpdateOne(ctx, filter, bson.D{{Key: "$max", Value: bson.D{{Key: "seen", Value: at}}}}); err != nil {
		return fmt.Errorf("recording that the streams are there: %w", err)
	}
	return nil
}

// StreamsSeen returns when a worker last saw the schedule stream that is
// remembered, by its own clock; zero: never.
func (s *Store) StreamsSeen(ctx context.Context) (time.Time, error) {
	var doc struct {
		Seen time.Time `bson:"seen"`
	}
	err := s.meta.FindOne(ctx, streamsDoc).Decode(&doc)
	if err != nil && !errors.Is(err, mongo.ErrNoDocuments) {
		return time.Time{}, fmt.Errorf("reading when the streams were seen: %w", err)
	}
	return doc.Seen, nil
}

// SuspectStreams records that the streams are gone and why is not known. It
// reports whether this caller was the first to say so, and so may find out.
func (s *Store) SuspectStreams(ctx context.Context) (first bool, err error) {
	filter := append(bson.D{{Key: "suspect", Value: bson.D{{Key: "$ne", Value: true}}}}, streamsDoc...)
	res, err := s.meta.UpdateOne(ctx, filter, bson.D{{Key: "$set", Value: bson.D{{Key: "suspect", Value: true}}}})
	if err != nil {
		return false, fmt.Errorf("recording that the streams are gone: %w", err)
	}
	return res.MatchedCount == 1, nil
}
