package store

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/events"
)

// Tally is how many grants of a broker are in a state.
type Tally struct {
	State State
	// Broker is the key of the broker type.
	Broker string
	Grants int64
}

// Tallies counts the grants by state and broker. It walks a whole index: call it
// rarely.
func (s *Store) Tallies(ctx context.Context) ([]Tally, error) {
	cursor, err := s.grants.Aggregate(ctx, bson.A{
		// All states, named so that the index alone answers.
		bson.D{{Key: "$match", Value: bson.D{{Key: "state", Value: bson.D{{Key: "$in", Value: bson.A{Active, MustAct, Expired, Revoked}}}}}}},
		bson.D{{Key: "$group", Value: bson.D{
			{Key: "_id", Value: bson.D{{Key: "state", Value: "$state"}, {Key: "broker", Value: "$broker"}}},
			{Key: "grants", Value: bson.D{{Key: "$sum", Value: int64(1)}}},
		}}},
	})
	rows, err := decodeAll[struct {
		ID struct {
			State  State  `bson:"state"`
			Broker string `bson:"broker"`
		} `bson:"_id"`
		Grants int64 `bson:"grants"`
	}](ctx, cursor, err, "counting grants by state and broker")
	if err != nil {
		return nil, err
	}
	counts := map[Tally]int64{}
	for _, row := range rows {
		counts[Tally{State: row.ID.State, Broker: events.BrokerKey(row.ID.Broker)}] += row.Grants
	}
	tallies := make([]Tally, 0, len(counts))
	for t, n := range counts {
		t.Grants = n
		tallies = append(tallies, t)
	}
	return tallies, nil
}

// CountDue counts the grants that are due in [from, before), up to a limit.
func (s *Store) CountDue(ctx context.Context, from, before time.Time, limit int64) (int64, error) {
	n, err := s.grants.CountDocuments(ctx, bson.D{
		{Key: "due.at", Value: bson.D{{Key: "$gte", Value: Milli(from)}, {Key: "$lt", Value: Milli(before)}}},
	}, options.Count().SetLimit(limit))
	return n, wrap(err, "counting grants that are due")
}

// DueBefore returns grants that are due before a time, nearest first.
func (s *Store) DueBefore(ctx context.Context, before time.Time, limit int) ([]*Grant, error) {
	page, err := s.list(ctx, "listing grants that are due", "due.at", before, Place{}, limit, nil)
	return page.Grants, err
}
