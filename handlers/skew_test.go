package handlers_test

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/clocktest"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/store"
)

// A worker whose clock differs from that of NATS, by which schedules fire, does
// what is due by its own clock, and has the message no more often than once before.
func TestNothingGoesRoundForTheLengthOfTheSkew(t *testing.T) {
	const skew = 3 * time.Second
	for name, off := range map[string]time.Duration{"behind": -skew, "in step": 0, "ahead": skew} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.Clock = clocktest.NewRunning(off)
			w := r.Worker("a")
			sources := map[string]handlers.Source{r.Subjects.RefreshDue(): {Stream: r.Subjects.RefreshStream(), Concurrency: 4}}
			sub, err := handlers.NewSubscriber(handlers.SubscriberOptions{Streams: r.Streams, AckWait: patience, Sources: sources, Log: r.Log})
			require.NoError(t, err)
			t.Cleanup(func() { _ = sub.Close() })
			messages, err := sub.Subscribe(t.Context(), r.Subjects.RefreshDue())
			require.NoError(t, err)
			postponed := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postponed"}, []string{"cause"})
			handle := handlers.RefreshDue(w.Refresher, w.Dispatcher, r.Clock.Now, func() float64 { return 0 }, postponed)
			deliveries := make(chan string, 1000)
			go func() {
				for msg := range messages {
					m, err := events.DecodeRefreshDue(msg.Payload)
					if err == nil {
						err = handle(context.WithoutCancel(msg.Context()), msg)
					}
					if err != nil {
						t.Error(err)
					}
					deliveries <- m.GrantID
					msg.Ack()
				}
			}()

			soon := store.Milli(time.Now().Add(time.Second))
			ends := func(change func(*store.Grant)) *store.Grant {
				return r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) {
					g.Access, g.Due = lasting(soon.Add(-hour), hour), &store.Due{At: soon, Action: store.Expire}
					change(g)
				})
			}
			all := []*store.Grant{
				ends(func(g *store.Grant) { g.Refresh, g.Warned = nil, events.ReasonNoRefreshToken }),
				ends(func(g *store.Grant) {
					g.State, g.Reason, g.Warned = store.MustAct, events.ReasonMFARequired, events.ReasonMFARequired
				}),
			}
			for _, g := range all {
				w.Settler.Schedule(g, g.Due)
				require.NoError(t, w.Store.Save(t.Context(), g))
				require.NoError(t, w.Dispatcher.Deliver(t.Context(), g))
			}
			for _, g := range all {
				r.Eventually(func() bool { return r.Get(w, g.ID).State == store.Expired }, "expired")
			}
			w.Dispatcher.Wait()
			require.LessOrEqual(t, len(deliveries), 3*len(all), "one more for a message that was long on its way")
		})
	}
}
