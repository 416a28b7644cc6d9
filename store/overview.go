package store

import (
	"context"
	"fmt"
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

// Tallies counts the grants by state and broker. It walks a whole index, so it
// is for once in a while.
func (s *Store) Tallies(ctx context.Context) ([]Tally, error) {
	cursor, err := s.grants.Aggregate(ctx, bson.A{
		// All there are; naming them has the counts come from the index alone.
		bson.D{{Key: "$match", Value: bson.D{{Key: "state", Value: bson.D{{Key: "$in", Value: bson.A{Active, MustAct, Expired, Revoked}}}}}}},
		bson.D{{Key: "$group", Value: bson.D{
			{Key: "_id", Value: bson.D{{Key: "state", Value: "$state"}, {Key: "broker", Value: "$broker"}}},
			{Key: "grants", Value: bson.D{{Key: "$sum", Value: int64(1)}}},
		}}},
	})
	rows, err := collect[struct {
		ID struct {
			State  State  `bson:"state"`
			Broker string `bson:"broker"`
		} `bson:"_id"`
		Grants int64 `bson:"grants"`
	}](ctx, cursor, err, "counting grants by state and broker")
	if err != nil {
		return nil, err
	}
	var out []Tally
	place := map[Tally]int{} // of a tally without its number
	for _, row := range rows {
		t := Tally{State: row.ID.State, Broker: events.BrokerKey(row.ID.Broker)}
		i, known := place[t]
		if !known {
			i = len(out)
			place[t] = i
			out = append(out, t)
		}
		out[i].Grants += row.Grants
	}
	return out, nil
}

// CountDue counts the grants that are due from one time on and before another,
// up to a limit.
func (s *Store) CountDue(ctx context.Context, from, before time.Time, limit int64) (int64, error) {
	n, err := s.grants.CountDocuments(ctx, bson.D{
		{Key: "due.at", Value: bson.D{{Key: "$gte", Value: Milli(from)}, {Key: "$lt", Value: Milli(before)}}},
	}, options.Count().SetLimit(limit))
	if err != nil {
		return 0, fmt.Errorf("counting grants that are due: %w", err)
	}
	return n, nil
}

// DueBefore returns grants that are due before a time, nearest first.
func (s *Store) DueBefore(ctx context.Context, before time.Time, limit int) ([]*Grant, error) {
	page, err := s.list(ctx, "listing grants that are due", "due.at", before, Place{}, limit, nil)
	return page.Grants, err
}
