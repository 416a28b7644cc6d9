package refresher_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/refresher/refreshertest"
	"github.com/latchkey/latchkey/store"
)

// checkInterval is how often grants are searched for whose access token ends.
var checkInterval = config.Default().Reconcile.Interval / 6

// served has a worker know how long tokens are handed out and how long a try takes.
var served = refreshertest.PlanBy(func(c *config.Config) { *c = config.Default() })

// Whatever keeps a grant from its next access token, its end is announced, once
// for each version and by whichever worker, before the token is no longer handed
// out; and the next token takes that back.
func TestTheEndIsAnnouncedWhateverTheWay(t *testing.T) {
	try := func(t *testing.T, r *rig, w *worker, all []*store.Grant) {
		for _, g := range all {
			if err := w.HandleDue(t.Context(), due(g)); err != nil {
				var later *refresher.LaterError
				require.ErrorAs(t, err, &later)
				require.NoError(t, w.Dispatcher.Postpone(t.Context(), due(g), r.Clock.Now().Add(later.After)))
			}
		}
	}
	fail := func(action meshsim.Action) func(*testing.T, *rig, *worker, []*store.Grant) {
		return func(t *testing.T, r *rig, w *worker, all []*store.Grant) {
			for _, g := range all {
				require.NoError(t, r.Sim.Script(g.Accounts[0].ID, action))
			}
			try(t, r, w, all)
		}
	}
	limited := meshsim.HTTPStatus(429)
	limited.RetryAfter = day
	for name, c := range map[string]struct {
		limits func(*refresher.Options)
		happen func(*testing.T, *rig, *worker, []*store.Grant)
	}{
		"the breaker opens":                       {func(d *refresher.Options) { d.Limits.BreakerFailures = 1 }, fail(meshsim.HTTPStatus(503))},
		"too many requests, for longer than that": {func(*refresher.Options) {}, fail(limited)},
		"the credentials are refused": {func(*refresher.Options) {}, func(t *testing.T, r *rig, w *worker, all []*store.Grant) {
			r.RefuseCredentials()
			try(t, r, w, all)
		}},
		"no message ever comes": {func(*refresher.Options) {}, func(*testing.T, *rig, *worker, []*store.Grant) {}},
		"every message is put off": {func(*refresher.Options) {}, func(t *testing.T, r *rig, w *worker, all []*store.Grant) {
			for _, g := range all {
				require.NoError(t, w.Dispatcher.Postpone(t.Context(), due(g), r.Clock.Now().Add(day)))
			}
		}},
		"KMS is away": {func(*refresher.Options) {}, func(t *testing.T, r *rig, w *worker, all []*store.Grant) {
			r.KMS.Faults().Always(kmssim.ServiceUnavailable)
		}},
		"the worker at it is killed": {func(*refresher.Options) {}, func(t *testing.T, r *rig, w *worker, all []*store.Grant) {
			for _, g := range all {
				_, _, err := w.Store.Acquire(t.Context(), store.LeaseRequest{GrantID: g.ID, Version: g.Version, Owner: "killed", Now: r.Clock.Now(), Until: r.Clock.Now().Add(day)})
				require.NoError(t, err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			w, other := r.Worker("a", served, c.limits), r.Worker("b", served)
			var all []*store.Grant
			for _, user := range []string{"one", "two", "three"} {
				all = append(all, r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.UserID = user }))
			}
			ends := *all[0].Access.ServedUntil(servedPolicy().ClockSkew)
			c.happen(t, r, w, all)
			w.Dispatcher.Wait()
			r.Clock.Advance(ends.Add(time.Second - 2*checkInterval).Sub(r.Clock.Now()))
			for n := range 4 {
				require.NoError(t, w.Reconciler.Pass(t.Context()))
				require.NoError(t, other.Reconciler.Pass(t.Context()))
				w.Dispatcher.Wait()
				other.Dispatcher.Wait()
				if n == 1 {
					require.True(t, r.Clock.Now().Before(ends))
					for _, g := range all {
						require.Equal(t, events.ReasonRefreshFailing, r.Get(w, g.ID).Warned)
					}
				}
				r.Clock.Advance(checkInterval)
			}
			for _, g := range all {
				told := slices.DeleteFunc(r.LifecycleEvents(g.UserID), func(e string) bool { return e != "token.expiring: refresh_failing" })
				require.Len(t, told, 1, g.UserID)
				require.Equal(t, events.ReasonRefreshFailing, r.Get(w, g.ID).Warned)
			}

			r.KMS.Faults().Clear()
			r.Sim.ClearFaults()
			r.Clock.Advance(2 * day)
			next := r.Worker("c", served)
			for _, g := range all {
				for tries := 0; r.Get(w, g.ID).Version == g.Version; tries++ {
					require.Less(t, tries, 10)
					r.Clock.Advance(time.Minute)
					_ = next.HandleDue(t.Context(), due(r.Get(w, g.ID)))
				}
				next.Dispatcher.Wait()
				require.Empty(t, r.Get(w, g.ID).Warned)
			}
		})
	}
}

// What is refreshed in its ordinary way is not announced, however near its end.
func TestNothingIsAnnouncedBeforeItsTime(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a", served)
	waiting, leased, endless := r.Connect(w, meshsim.ConnectSpec{}), r.Connect(w, meshsim.ConnectSpec{}), r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.Access.ExpiresAt = nil })
	p := servedPolicy()
	last := *p.LatestAttempt(waiting)
	r.Clock.Advance(last.Add(-30 * time.Second).Sub(r.Clock.Now()))
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	require.Empty(t, r.LifecycleEvents("user"), "there is time for a try")

	_, _, err := w.Store.Acquire(t.Context(), store.LeaseRequest{GrantID: leased.ID, Version: 1, Owner: "at it", Now: r.Clock.Now(), Until: r.Clock.Now().Add(hour)})
	require.NoError(t, err)
	r.Clock.Advance(30 * time.Second)
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	r.Clock.Advance(checkInterval)
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	w.Dispatcher.Wait()
	require.NotEmpty(t, r.Get(w, waiting.ID).Warned)
	require.Empty(t, r.Get(w, leased.ID).Warned, "somebody may bring the next in time")
	require.Empty(t, r.Get(w, endless.ID).Warned)
}

// A grant that never had an access token is announced though none of its messages
// is handled.
func TestAGrantThatWasNeverGivenATokenIsAnnounced(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a", served)
	g := r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.Access = nil })
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	require.Empty(t, r.LifecycleEvents("user"), "it has only just come")
	r.Clock.Advance(slack + time.Second)
	for range 3 {
		require.NoError(t, w.Reconciler.Pass(t.Context()))
		w.Dispatcher.Wait()
		r.Clock.Advance(checkInterval)
	}
	require.Equal(t, []string{"token.expiring: refresh_failing"}, r.LifecycleEvents("user"))
	require.Equal(t, 1, r.Get(w, g.ID).Due.Reschedules, "and its message is made again")
}

// A grant may be announced while it is being refreshed: neither takes anything from
// the other.
func TestAnAnnouncementTakesNothingFromARefresh(t *testing.T) {
	t.Run("that goes well", func(t *testing.T) {
		r := newRig(t)
		w := r.Worker("a", served)
		g := r.Connect(w, meshsim.ConnectSpec{})
		r.Clock.Advance(hour)
		r.Block(g.Accounts[0].ID)
		answered := r.inBackground(w, due(g))
		r.Wait(r.Blocked)
		for range 2 {
			require.NoError(t, w.Reconciler.Pass(t.Context()))
			r.Clock.Advance(checkInterval)
		}
		require.NotEmpty(t, r.Get(w, g.ID).Warned)
		r.Unblock <- struct{}{}
		require.NoError(t, r.Result(answered))
		w.Dispatcher.Wait()
		require.Equal(t, int64(2), r.Get(w, g.ID).Version)
		require.Empty(t, r.Get(w, g.ID).Warned)
		require.Equal(t, []string{"token.expiring: refresh_failing", "token.refreshed: "}, r.LifecycleEvents("user"))
		r.RequireSoundTokens(w, g.ID)
	})
	t.Run("that fails", func(t *testing.T) {
		r := newRig(t)
		server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) {
			r.Blocked <- struct{}{}
			<-r.Unblock
			out.WriteHeader(http.StatusServiceUnavailable)
		}))
		t.Cleanup(server.Close)
		r.MeshURL = server.URL
		w := r.Worker("a", served)
		g := r.Connect(w, meshsim.ConnectSpec{})
		r.Clock.Advance(hour)
		answered := r.inBackground(w, due(g))
		r.Wait(r.Blocked)
		for range 2 {
			require.NoError(t, w.Reconciler.Pass(t.Context()))
			r.Clock.Advance(checkInterval)
		}
		require.NotEmpty(t, r.Get(w, g.ID).Warned)
		r.Unblock <- struct{}{}
		require.NoError(t, r.Result(answered))
		w.Dispatcher.Wait()
		got := r.Get(w, g.ID)
		require.Nil(t, got.Lease, "the failure is noted all the same")
		require.Equal(t, 1, got.Attempts)
		require.Equal(t, []string{"token.expiring: refresh_failing"}, r.LifecycleEvents("user"))
	})
}

// A grant that is stored with a token that is over is not announced while it is on
// its way to its first refresh.
func TestAGrantOnItsWayToItsFirstRefreshIsNotAnnounced(t *testing.T) {
	for name, access := range map[string]func(now time.Time) *store.Lifetime{
		"never given a token":      func(time.Time) *store.Lifetime { return nil },
		"over":                     func(now time.Time) *store.Lifetime { return lasting(now.Add(-2*hour), hour) },
		"no longer handed out":     func(now time.Time) *store.Lifetime { return lasting(now.Add(5*time.Second-hour), hour) },
		"handed out for a moment":  func(now time.Time) *store.Lifetime { return lasting(now.Add(40*time.Second-hour), hour) },
		"by a clock that is ahead": func(now time.Time) *store.Lifetime { return lasting(now.Add(-2*hour), hour) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			w := r.Worker("a", served)
			stored := r.Clock.Now()
			if name == "by a clock that is ahead" {
				stored = stored.Add(servedPolicy().ClockSkew)
			}
			g := r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) {
				g.Access, g.Due.At = access(r.Clock.Now()), stored
			})
			// However often and by however many workers it is looked at.
			for range 5 {
				for _, id := range []string{"b", "c"} {
					require.NoError(t, r.Worker(id, served).Reconciler.Pass(t.Context()))
				}
				r.Clock.Advance(slack/5 - time.Second)
			}
			require.NoError(t, w.HandleDue(t.Context(), due(g)))
			w.Dispatcher.Wait()
			require.Equal(t, []string{"token.refreshed: "}, r.LifecycleEvents("user"))
		})
	}
}

// A grant that nobody refreshes is announced by the first check after the try has
// been due for a while, by a worker that was started only then.
func TestAGrantWhoseFirstRefreshDoesNotComeIsAnnounced(t *testing.T) {
	for name, c := range map[string]struct {
		ago    time.Duration // how long before now its access token began, which lasts an hour; 0: it has none
		leased bool
		after  time.Duration
	}{
		"never given a token":     {0, false, slack},
		"over":                    {2 * hour, false, slack},
		"handed out for a moment": {hour - 40*time.Second, false, slack},
		"never given a token, a try is under way":  {0, true, slack + servedPolicy().Lead},
		"over, a try is under way":                 {2 * hour, true, slack + servedPolicy().Lead},
		"over for long before anybody looks at it": {2 * hour, false, day},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			w := r.Worker("a", served)
			g := r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) {
				g.Access = nil
				if c.ago > 0 {
					g.Access = lasting(r.Clock.Now().Add(-c.ago), hour)
				}
				if c.leased {
					g.Lease = &store.Lease{Owner: "at it", Until: r.Clock.Now().Add(day)}
				}
			})
			r.Clock.Advance(min(c.after, slack+servedPolicy().Lead) - time.Second)
			if c.after < day {
				require.NoError(t, w.Reconciler.Pass(t.Context()))
				require.Empty(t, r.LifecycleEvents("user"))
			}
			r.Clock.Advance(c.after)
			require.NoError(t, r.Worker("b", served).Reconciler.Pass(t.Context()))
			require.Equal(t, events.ReasonRefreshFailing, r.Get(w, g.ID).Warned)
			require.Equal(t, []string{"token.expiring: refresh_failing"}, r.LifecycleEvents("user"))
		})
	}
}
