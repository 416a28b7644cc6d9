package refresher_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/refresher/refreshertest"
	"github.com/latchkey/latchkey/store"
)

// rig drops what answers leave: the tests of handlers see the dead letters.
type rig struct{ *refreshertest.Rig }

func newRig(t *testing.T) *rig {
	t.Helper()
	return &rig{refreshertest.New(t)}
}

func (r *rig) Worker(id string, change ...func(*refresher.Options)) *worker {
	r.T.Helper()
	park := func(d *refresher.Options) {
		d.ParkAnswer = func(context.Context, *store.Grant, string, []byte) error { return nil }
	}
	return r.Rig.Worker(id, append([]func(*refresher.Options){park}, change...)...)
}

// documents are the stored grants, behind the workers' back.
func (r *rig) documents() *mongo.Collection {
	r.T.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(r.DB.URI()))
	require.NoError(r.T, err)
	r.T.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	return client.Database(r.DatabaseName).Collection("grants")
}

// alter changes a stored document.
func (r *rig) alter(id string, set bson.D) {
	r.T.Helper()
	res, err := r.documents().UpdateOne(r.T.Context(), bson.D{{Key: "_id", Value: id}}, bson.D{{Key: "$set", Value: set}})
	require.NoError(r.T, err)
	require.Equal(r.T, int64(1), res.MatchedCount)
}

// inBackground handles a due message and returns where its error arrives.
func (r *rig) inBackground(w *worker, m events.RefreshDue) <-chan error {
	done := make(chan error, 1)
	go func() { done <- w.HandleDue(context.Background(), m) }()
	return done
}

// schedule returns the pending schedule of a grant, nil if there is none.
func (r *rig) schedule(id string) *jetstream.RawStreamMsg {
	r.T.Helper()
	all := r.Messages(r.Subjects.RefreshStream(), r.Subjects.RefreshSchedule(id))
	require.LessOrEqual(r.T, len(all), 1, "a schedule replaces the one before")
	if len(all) == 0 {
		return nil
	}
	return all[0]
}

// dueMessages returns the due messages of a grant that wait to be handled.
func (r *rig) dueMessages(id string) []events.RefreshDue {
	r.T.Helper()
	var out []events.RefreshDue
	for _, m := range r.Messages(r.Subjects.RefreshStream(), r.Subjects.RefreshDue()) {
		var d events.RefreshDue
		require.NoError(r.T, json.Unmarshal(m.Data, &d))
		if d.GrantID == id {
			out = append(out, d)
		}
	}
	return out
}
