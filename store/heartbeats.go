package store

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Heartbeat is a sign of life of a worker: the next number of its run. No clock is compared.
type Heartbeat struct {
	Run    string `bson:"_id"`
	Worker string `bson:"worker"`
	N      int64  `bson:"n"`
}

// RecordHeartbeat records a worker's beat, and returns those of all workers after it.
func (s *Store) RecordHeartbeat(ctx context.Context, b Heartbeat) ([]Heartbeat, error) {
	_, err := s.workers.UpdateOne(ctx, byID(b.Run),
		bson.D{{Key: "$set", Value: bson.D{{Key: "worker", Value: b.Worker}, {Key: "n", Value: b.N}}}}, options.UpdateOne().SetUpsert(true))
	if err != nil {
		return nil, wrap(err, "recording that this worker is there")
	}
	cursor, err := s.workers.Find(ctx, bson.D{})
	return decodeAll[Heartbeat](ctx, cursor, err, "counting the workers")
}

// DeleteHeartbeat forgets a worker unless it has recorded another beat since. The beat itself may
// not have been recorded, because the worker stopped meanwhile.
func (s *Store) DeleteHeartbeat(ctx context.Context, b Heartbeat) error {
	_, err := s.workers.DeleteOne(ctx, bson.D{{Key: "_id", Value: b.Run}, {Key: "n", Value: bson.D{{Key: "$lte", Value: b.N}}}})
	return wrap(err, "forgetting a worker")
}
