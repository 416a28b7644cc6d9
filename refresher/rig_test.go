package refresher_test

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
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

// rig notes what answers left in place of parking it, which is the work of handlers.
type rig struct {
	*refreshertest.Rig

	mu   sync.Mutex
	left map[string][]leftover
}

// leftover is what an answer left, under an id.
type leftover struct{ id, body string }

func newRig(t *testing.T) *rig {
	t.Helper()
	return &rig{Rig: refreshertest.New(t), left: map[string][]leftover{}}
}

func (r *rig) Worker(id string, change ...func(*refresher.Options)) *worker {
	r.T.Helper()
	park := func(d *refresher.Options) { d.ParkAnswer = r.park }
	return r.Rig.Worker(id, append([]func(*refresher.Options){park}, change...)...)
}

// park notes what an answer left, once under each id as dead letters do.
func (r *rig) park(_ context.Context, g *store.Grant, id string, body []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.ContainsFunc(r.left[g.ID], func(l leftover) bool { return l.id == id }) {
		r.left[g.ID] = append(r.left[g.ID], leftover{id, string(body)})
	}
	return nil
}

// leftovers returns what answers about a grant left.
func (r *rig) leftovers(g *store.Grant) (bodies []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.left[g.ID] {
		bodies = append(bodies, l.body)
	}
	return bodies
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
