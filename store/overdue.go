package store

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/events"
)

// OverdueTally is what should have been done for the grants of a broker already.
type OverdueTally struct {
	// Broker is the key of the broker type.
	Broker string
	Grants int64
	// Since is when the longest overdue was due.
	Since time.Time
}

// TallyOverdue counts the grants that were due before a time by broker, the longest
// overdue first and up to a limit over all brokers.
func (s *Store) TallyOverdue(ctx context.Context, before time.Time, limit int) ([]OverdueTally, error) {
	const doing = "counting overdue grants by broker"
	cursor, err := s.grants.Find(ctx,
		bson.D{{Key: "due.at", Value: bson.D{{Key: "$lt", Value: Milli(before)}}}},
		options.Find().SetSort(bson.D{{Key: "due.at", Value: 1}}).SetLimit(int64(limit)).
			SetProjection(bson.D{{Key: "_id", Value: 0}, {Key: "broker", Value: 1}, {Key: "due.at", Value: 1}}))
	if err != nil {
		return nil, wrap(err, doing)
	}
	defer cursor.Close(context.WithoutCancel(ctx))
	tallies := map[string]OverdueTally{}
	for cursor.Next(ctx) {
		broker, _ := cursor.Current.Lookup("broker").StringValueOK() // a damaged document is overdue all the same
		at, _ := cursor.Current.Lookup("due", "at").TimeOK()
		key := events.BrokerKey(broker)
		t, known := tallies[key]
		if !known {
			t = OverdueTally{Broker: key, Since: at.UTC()}
		}
		t.Grants++
		tallies[key] = t
	}
	if err := cursor.Err(); err != nil {
		return nil, wrap(err, doing)
	}
	return slices.SortedFunc(maps.Values(tallies), func(a, b OverdueTally) int { return cmp.Compare(a.Broker, b.Broker) }), nil
}
