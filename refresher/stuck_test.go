package refresher_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// For each list of reconciliation: pages full of grants for which nothing can be
// done stand ahead of some for which it can, and don't hide them.
func TestStuckGrantsHideNothing(t *testing.T) {
	t.Parallel()
	const stuck, good = 9, 4 // in pages of 2
	notDecodable := func(r *rig, w *worker, g *store.Grant) { r.alter(g.ID, bson.D{{Key: "accounts", Value: "nonsense"}}) }
	for name, list := range map[string]struct {
		grant func(r *rig, w *worker, g *store.Grant)
		done  func(r *rig, w *worker, g *store.Grant) bool
		stuck map[string]func(r *rig, w *worker, g *store.Grant)
	}{
		"outboxes": {
			grant: func(r *rig, w *worker, g *store.Grant) {
				g.Due = nil
				subject := r.Subjects.Lifecycle(events.TokenStored, "user")
				g.Outbox = &store.Outbox{Since: r.Clock.Now(), Events: []store.OutboxEvent{{ID: g.ID, Subject: subject, Data: []byte("{}")}}}
			},
			done: func(r *rig, w *worker, g *store.Grant) bool { return r.Get(w, g.ID).Outbox == nil },
			stuck: map[string]func(r *rig, w *worker, g *store.Grant){
				"a subject of no stream":         func(_ *rig, _ *worker, g *store.Grant) { g.Outbox.Events[0].Subject = "of.no.stream" },
				"a document that doesn't decode": nil,
			},
		},
		"schedules": {
			grant: func(r *rig, w *worker, g *store.Grant) {
				g.Due = &store.Due{At: r.Clock.Now().Add(hour), Action: store.Refresh}
			},
			done: func(r *rig, w *worker, g *store.Grant) bool { return r.schedule(g.ID) != nil },
			stuck: map[string]func(r *rig, w *worker, g *store.Grant){
				"a document that doesn't decode": nil,
				"an outbox that NATS refuses": func(r *rig, _ *worker, g *store.Grant) {
					g.Outbox = &store.Outbox{Since: r.Clock.Now(), Events: []store.OutboxEvent{{ID: g.ID, Subject: "of.no.stream"}}}
				},
			},
		},
		"overdue grants": {
			grant: func(r *rig, w *worker, g *store.Grant) { g.Due.At = r.Clock.Now().Add(-hour) },
			done:  func(r *rig, w *worker, g *store.Grant) bool { return r.Get(w, g.ID).Due.Reschedules == 1 },
			stuck: map[string]func(r *rig, w *worker, g *store.Grant){
				"a document that doesn't decode": nil,
				"a lease": func(r *rig, _ *worker, g *store.Grant) {
					g.Lease = &store.Lease{Owner: "b", Until: r.Clock.Now().Add(day)}
				},
			},
		},
		"records to drop": {
			grant: func(r *rig, w *worker, g *store.Grant) {
				at := r.Clock.Now().Add(-hour)
				g.State, g.Due, g.PurgeAt = store.Expired, nil, &at
			},
			done: func(r *rig, w *worker, g *store.Grant) bool {
				_, err := w.Store.Get(r.T.Context(), g.ID)
				return err != nil
			},
			stuck: map[string]func(r *rig, w *worker, g *store.Grant){"a document that doesn't decode": nil},
		},
		"tokens that end": {
			grant: func(r *rig, w *worker, g *store.Grant) {
				g.Access, g.Due.At = lasting(r.Clock.Now().Add(-hour), time.Minute), r.Clock.Now().Add(hour)
			},
			done: func(r *rig, w *worker, g *store.Grant) bool {
				return r.Get(w, g.ID).Warned == events.ReasonRefreshFailing
			},
			stuck: map[string]func(r *rig, w *worker, g *store.Grant){"a document that doesn't decode": nil},
		},
	} {
		for why, spoil := range list.stuck {
			t.Run(name+": "+why, func(t *testing.T) {
				r := newRig(t)
				w := r.Worker("a")
				w.Reconciler.Settings().Batch = 2
				connect := func(id string, spoil func(r *rig, w *worker, g *store.Grant)) *store.Grant {
					g := r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) {
						list.grant(r, w, g)
						g.ID = id // the order among those with the same time
						if spoil != nil {
							spoil(r, w, g)
						}
					})
					return g
				}
				for n := range stuck {
					g := connect(fmt.Sprintf("a%03d", n), spoil)
					if spoil == nil {
						notDecodable(r, w, g)
					}
				}
				var grants []*store.Grant
				for n := range good {
					grants = append(grants, connect(fmt.Sprintf("b%03d", n), nil))
				}
				r.Clock.Advance(2 * slack)
				err := w.Reconciler.Pass(t.Context())
				for _, g := range grants {
					require.True(t, list.done(r, w, g), "%s after a pass with: %v", g.ID, err)
				}
				if why != "a lease" {
					require.ErrorContains(t, err, "failed, of which the first")
					require.Less(t, strings.Count(err.Error(), "grant a"), 5*3, "a few of them as examples")
				}
			})
		}
	}
}

// A mass repair goes on at its full pace though some of it fails.
func TestAMassRepairGoesOnBesideFailures(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.Worker("a")
	w.Reconciler.Settings().Batch = 2
	for n := range 120 {
		g := r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) {
			g.ID = fmt.Sprintf("g%03d", n)
			g.Due = &store.Due{At: r.Clock.Now().Add(hour), Action: store.Refresh}
		})
		if n%2 == 0 {
			r.alter(g.ID, bson.D{{Key: "accounts", Value: "nonsense"}})
		}
	}
	require.Error(t, w.Reconciler.Pass(t.Context()))
	require.Less(t, w.Reconciler.Pause(), w.Reconciler.Settings().Interval/2, "there is more to do")
}
