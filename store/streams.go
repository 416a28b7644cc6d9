package store

import (
	"context"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// The database remembers the streams of NATS, so that workers notice when NATS has
// lost them.

var streamsDoc = byID("refresh-stream")

// StreamIdentity returns the remembered identity of the schedule streams, or "".
func (s *Store) StreamIdentity(ctx context.Context) (string, error) {
	doc, err := decodeOne[struct {
		Identity string `bson:"identity"`
	}](s.meta.FindOne(ctx, streamsDoc), nil, "reading the stream's identity")
	return doc.Identity, err
}

// RememberStream stores the identity of the schedule streams, and clears the suspicion
// of SuspectStreams.
func (s *Store) RememberStream(ctx context.Context, identity string) error {
	_, err := s.meta.UpdateOne(ctx, streamsDoc,
		bson.D{{Key: "$set", Value: bson.D{{Key: "identity", Value: identity}, {Key: "suspect", Value: false}}}}, options.UpdateOne().SetUpsert(true))
	return wrap(err, "storing the stream's identity")
}

// RecordStreamsSeen records that a worker sees the schedule streams with this identity. It
// does nothing if others are remembered.
func (s *Store) RecordStreamsSeen(ctx context.Context, identity string, at time.Time) error {
	filter := append(bson.D{{Key: "identity", Value: identity}}, streamsDoc...)
	_, err := s.meta.UpdateOne(ctx, filter, bson.D{{Key: "$max", Value: bson.D{{Key: "seen", Value: at}}}})
	return wrap(err, "recording that the streams are there")
}

// StreamsSeen returns when a worker last saw the remembered streams, by its own clock;
// zero: never.
func (s *Store) StreamsSeen(ctx context.Context) (time.Time, error) {
	doc, err := decodeOne[struct {
		Seen time.Time `bson:"seen"`
	}](s.meta.FindOne(ctx, streamsDoc), nil, "reading when the streams were seen")
	return doc.Seen, err
}

// SuspectStreams records that the streams are gone for an unknown reason. first: this
// caller is the first to say so, and may find out the reason.
func (s *Store) SuspectStreams(ctx context.Context) (first bool, err error) {
	filter := append(bson.D{{Key: "suspect", Value: bson.D{{Key: "$ne", Value: true}}}}, streamsDoc...)
	res, err := s.meta.UpdateOne(ctx, filter, bson.D{{Key: "$set", Value: bson.D{{Key: "suspect", Value: true}}}})
	if err != nil {
		return false, fmt.Errorf("recording that the streams are gone: %w", err)
	}
	return res.MatchedCount == 1, nil
}
