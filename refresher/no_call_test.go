package refresher_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

const slotTaken = "every slot is taken"

// What is due without a call is done at once, whatever calls have to wait for.
func TestWhatMakesNoCallWaitsForNobody(t *testing.T) {
	fail := func(status int) func(*testing.T, *rig, *worker) {
		return func(t *testing.T, r *rig, w *worker) {
			g := r.Connect(w, meshsim.ConnectSpec{})
			require.NoError(t, r.Sim.Script(g.Accounts[0].ID, meshsim.HTTPStatus(status)))
			require.NoError(t, w.HandleDue(t.Context(), due(g)))
		}
	}
	takeSlot := func(t *testing.T, r *rig, w *worker) {
		g := r.Connect(w, meshsim.ConnectSpec{})
		r.Block(g.Accounts[0].ID)
		answered := r.inBackground(w, due(g))
		r.Wait(r.Blocked)
		t.Cleanup(func() { r.Unblock <- struct{}{}; require.NoError(t, r.Result(answered)) })
	}
	for name, c := range map[string]struct {
		limits func(*refresher.Options)
		block  func(*testing.T, *rig, *worker)
		why    string // of a refresh; empty: it waits, or fails otherwise
	}{
		"the breaker is open": {func(d *refresher.Options) { d.Limits.BreakerFailures = 1 }, fail(500), "breaker"},
		"the credentials are refused": {func(*refresher.Options) {}, func(t *testing.T, r *rig, w *worker) {
			r.RefuseCredentials()
			require.NoError(t, w.HandleDue(t.Context(), due(r.Connect(w, meshsim.ConnectSpec{}))))
		}, "credentials"},
		"the broker's rate is used up":      {func(d *refresher.Options) { d.Limits.BrokerRate, d.Limits.BrokerBurst, d.Concurrency = 1e-6, 1, 1 }, fail(500), ""},
		"the rate is used up":               {func(d *refresher.Options) { d.Limits.Rate, d.Limits.Burst, d.Concurrency = 1e-6, 1, 1 }, fail(500), ""},
		slotTaken:                           {func(d *refresher.Options) { d.Concurrency = 1 }, takeSlot, ""},
		"the last of the rate has the slot": {func(d *refresher.Options) { d.Limits.Rate, d.Limits.Burst, d.Concurrency = 1e-6, 1, 1 }, takeSlot, ""},
		"KMS is away": {func(*refresher.Options) {}, func(_ *testing.T, r *rig, _ *worker) {
			r.KMS.Faults().Always(kmssim.ServiceUnavailable)
			r.Clock.Advance(30 * day) // no key in memory serves that long
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			w := r.Worker("a", c.limits)
			user := func(name string, change func(*store.Grant)) *store.Grant {
				return r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) {
					g.UserID = name
					change(g)
				})
			}
			end := func(g *store.Grant) { g.Due.At = *g.Access.ExpiresAt }
			grants := map[string]*store.Grant{
				"warned": user("warned", func(g *store.Grant) { g.Refresh, g.Due.Action = nil, store.Warn }),
				"ended": user("ended", func(g *store.Grant) {
					g.Refresh, g.Warned, g.Due.Action = nil, events.ReasonNoRefreshToken, store.Expire
					end(g)
				}),
				"acts": user("acts", func(g *store.Grant) {
					g.State, g.Reason, g.Warned, g.Due.Action = store.MustAct, events.ReasonMFARequired, events.ReasonMFARequired, store.Expire
					end(g)
				}),
				"unrenewed": user("unrenewed", func(g *store.Grant) {
					g.Refresh = lasting(g.ConnectedAt, time.Minute)
					g.Due.At = *g.Refresh.ExpiresAt
				}),
			}
			if name != slotTaken { // for which a refresh waits that was one when it was scheduled
				grants["ended since"] = user("ended since", func(g *store.Grant) { g.Refresh = lasting(g.ConnectedAt, time.Minute) })
			}
			waiting := user("waiting", func(*store.Grant) {})
			r.Clock.Advance(meshsim.DefaultAccessLifetime)
			c.block(t, r, w)
			if c.why != "" {
				var later *refresher.LaterError
				require.ErrorAs(t, w.HandleDue(t.Context(), due(waiting)), &later)
				require.Equal(t, c.why, later.Why)
			}
			calls := r.Calls()
			ctx, cancel := context.WithTimeout(t.Context(), patience) // who waits, waits for good
			defer cancel()
			for _, g := range grants {
				require.NoError(t, w.HandleDue(ctx, due(g)), g.UserID)
			}
			w.Dispatcher.Wait()
			require.Equal(t, []string{"token.expired: no_refresh_token"}, r.LifecycleEvents("ended"))
			require.Equal(t, []string{"token.expired: mfa_required"}, r.LifecycleEvents("acts"))
			require.Equal(t, []string{"token.expired: refresh_token_expired"}, r.LifecycleEvents("unrenewed"))
			require.NotEmpty(t, r.LifecycleEvents("warned"))
			stale := due(grants["warned"])
			stale.Version++
			require.NoError(t, w.HandleDue(ctx, stale), "neither does what is out of date")
			if name != slotTaken {
				stale = due(waiting)
				stale.Version++
				require.NoError(t, w.HandleDue(ctx, stale))
			}
			require.NoError(t, w.HandleDue(ctx, events.RefreshDue{GrantID: "nobody", BrokerType: "coinbase", Version: 1, DueAt: r.Clock.Now()}))
			require.Equal(t, calls, r.Calls())
		})
	}
}

// A backlog costs no reads: who waits for a slot learns from the lease whether there is
// something to do.
func TestWhoWaitsForASlotReadsNothing(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a", func(d *refresher.Options) { d.Concurrency = 1 })
	first, second, changed := r.Connect(w, meshsim.ConnectSpec{}), r.Connect(w, meshsim.ConnectSpec{}), r.Connect(w, meshsim.ConnectSpec{})
	r.Block(first.Accounts[0].ID)
	var reads atomic.Int32
	r.DB.Proxy().Swallow(func(command, collection string) bool {
		if command == "find" && collection == "grants" {
			reads.Add(1)
		}
		return false
	})
	answered := r.inBackground(w, due(first))
	r.Wait(r.Blocked)
	stale := due(changed)
	stale.Version++
	waiting := []<-chan error{r.inBackground(w, due(second)), r.inBackground(w, stale)}
	r.Eventually(func() bool { return w.Waiting() == len(waiting) }, "they do not wait")
	require.Zero(t, reads.Load())
	r.Unblock <- struct{}{}
	for _, result := range append(waiting, answered) {
		require.NoError(t, r.Result(result))
	}
	require.Equal(t, int64(2), r.Get(w, second.ID).Version)
	require.Equal(t, int64(1), r.Get(w, changed.ID).Version)
	require.Equal(t, 2, r.Calls())
}

// Messages that call nobody use up nothing of what calls are limited by.
func TestAMessageThatCallsNobodyCostsNoRate(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a", func(d *refresher.Options) {
		d.Limits = wide(func(l *config.Limits) { l.BrokerRate, l.BrokerBurst, l.Rate, l.Burst = 1e-6, 2, 1e-6, 2 })
	})
	g, other := r.Connect(w, meshsim.ConnectSpec{}), r.Connect(w, meshsim.ConnectSpec{})
	ctx, cancel := context.WithTimeout(t.Context(), patience) // without a token they would wait for good
	defer cancel()
	old := due(g)
	require.NoError(t, w.HandleDue(ctx, old))
	for range 20 {
		require.NoError(t, w.HandleDue(ctx, old))
	}
	require.NoError(t, w.HandleDue(ctx, due(other)))
	require.Equal(t, 2, r.Calls())
}

func TestWhatWasNotUsedIsGivenBack(t *testing.T) {
	for name, limit := range map[string]func(*config.Limits){
		"broker":  func(l *config.Limits) { l.BrokerRate, l.BrokerBurst = 1, 1 },
		"overall": func(l *config.Limits) { l.Rate, l.Burst = 1, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLimits(wide(limit), newClock(t0))
			for range 5 {
				enter(t, l, "a")(&refresher.Failure{Class: refresher.Uncalled})
			}
			enter(t, l, "a")(nil)
			require.Equal(t, "rate", later(t, l, "a").Why)
		})
	}
}

func TestTryNeverWaits(t *testing.T) {
	c := newClock(t0)
	q := must(refresher.NewQueue(refresher.QueueOptions{Limits: newLimits(wide(), c), Slots: 1, Room: 10, Now: c.Now}))
	done, ok := q.Try("a", in(0))
	require.True(t, ok)
	_, ok = q.Try("a", in(0))
	require.False(t, ok, "the slot is taken")
	out := make(chan arrival, 1)
	arrive(t.Context(), q, out, "waits", "a", in(hour))
	_, ok = q.Try("b", in(0))
	require.False(t, ok)
	require.Equal(t, 1, q.Waiting(), "who tried is gone, who waits is not")
	done(nil)
	got := <-out
	require.NoError(t, got.err)
	got.done(nil)
	q.Close()
	_, ok = q.Try("a", in(0))
	require.False(t, ok)
}
