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
	"github.com/latchkey/latchkey/store"
)

// look is how often grants are looked for whose access token ends.
var look = config.Default().Reconcile.Interval / 6

// served has a worker know how long tokens are handed out and how long a try takes.
func served(d *refresher.Deps) { d.Settler.Policy = servedPolicy() }

// Whatever keeps a grant from its next access token, its end is announced, once
// for each version and by whichever worker, before the token is no longer handed
// out; and the next token takes that back.
func TestTheEndIsAnnouncedWhateverTheWay(t *testing.T) {
	try := func(t *testing.T, r *rig, w *worker, all []*store.Grant) {
		for _, g := range all {
			if err := w.Due(t.Context(), due(g)); err != nil {
				var later *refresher.LaterError
				require.ErrorAs(t, err, &later)
				require.NoError(t, w.dispatcher.Postpone(t.Context(), due(g), r.clock.Now().Add(later.After)))
			}
		}
	}
	fail := func(action meshsim.Action) func(*testing.T, *rig, *worker, []*store.Grant) {
		return func(t *testing.T, r *rig, w *worker, all []*store.Grant) {
			for _, g := range all {
				require.NoError(t, r.sim.Script(g.Accounts[0].ID, action))
			}
			try(t, r, w, all)
		}
	}
	limited := meshsim.HTTPStatus(429)
	limited.RetryAfter = day
	for name, c := range map[string]struct {
		limits func(*refresher.Deps)
		happen func(*testing.T, *rig, *worker, []*store.Grant)
	}{
		"the breaker opens":                       {func(d *refresher.Deps) { d.Limits.BreakerFailures = 1 }, fail(meshsim.HTTPStatus(503))},
		"too many requests, for longer than that": {func(*refresher.Deps) {}, fail(limited)},
		"the credentials are refused": {func(*refresher.Deps) {}, func(t *testing.T, r *rig, w *worker, all []*store.Grant) {
			r.refuseCredentials()
			try(t, r, w, all)
		}},
		"no message ever comes": {func(*refresher.Deps) {}, func(*testing.T, *rig, *worker, []*store.Grant) {}},
		"every message is put off": {func(*refresher.Deps) {}, func(t *testing.T, r *rig, w *worker, all []*store.Grant) {
			for _, g := range all {
				require.NoError(t, w.dispatcher.Postpone(t.Context(), due(g), r.clock.Now().Add(day)))
			}
		}},
		"KMS is away": {func(*refresher.Deps) {}, func(t *testing.T, r *rig, w *worker, all []*store.Grant) {
			r.kms.Faults().Always(kmssim.ServiceUnavailable)
		}},
		"the worker at it is killed": {func(*refresher.Deps) {}, func(t *testing.T, r *rig, w *worker, all []*store.Grant) {
			for _, g := range all {
				_, _, err := w.store.Acquire(t.Context(), store.LeaseRequest{GrantID: g.ID, Version: g.Version, Owner: "killed", Now: r.clock.Now(), Until: r.clock.Now().Add(day)})
				require.NoError(t, err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			w, other := r.worker("a", served, c.limits), r.worker("b", served)
			var all []*store.Grant
			for _, user := range []string{"one", "two", "three"} {
				all = append(all, r.connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.UserID = user }))
			}
			ends := *all[0].Access.ServedUntil(servedPolicy().ClockSkew)
			c.happen(t, r, w, all)
			w.dispatcher.Wait()
			r.clock.advance(ends.Add(time.Second - 2*look).Sub(r.clock.Now()))
			for n := range 4 {
				require.NoError(t, w.reconciler.Pass(t.Context()))
				require.NoError(t, other.reconciler.Pass(t.Context()))
				w.dispatcher.Wait()
				other.dispatcher.Wait()
				if n == 1 {
					require.True(t, r.clock.Now().Before(ends))
					for _, g := range all {
						require.Equal(t, events.ReasonRefreshFailing, r.get(w, g.ID).Warned)
					}
				}
				r.clock.advance(look)
			}
			for _, g := range all {
				told := slices.DeleteFunc(r.told(g.UserID), func(e string) bool { return e != "token.expiring: refresh_failing" })
				require.Len(t, told, 1, g.UserID)
				require.Equal(t, events.ReasonRefreshFailing, r.get(w, g.ID).Warned)
			}

			r.kms.Faults().Clear()
			r.sim.ClearFaults()
			r.clock.advance(2 * day)
			next := r.worker("c", served)
			for _, g := range all {
				for tries := 0; r.get(w, g.ID).Version == g.Version; tries++ {
					require.Less(t, tries, 10)
					r.clock.advance(time.Minute)
					_ = next.Due(t.Context(), due(r.get(w, g.ID)))
				}
				next.dispatcher.Wait()
				require.Empty(t, r.get(w, g.ID).Warned)
			}
		})
	}
}

// What is refreshed in its ordinary way is not announced, however near its end.
func TestNothingIsAnnouncedBeforeItsTime(t *testing.T) {
	r := newRig(t)
	w := r.worker("a", served)
	waiting, leased, endless := r.connect(w, meshsim.ConnectSpec{}), r.connect(w, meshsim.ConnectSpec{}), r.connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.Access.ExpiresAt = nil })
	p := servedPolicy()
	last := *p.LastTry(waiting)
	r.clock.advance(last.Add(-30 * time.Second).Sub(r.clock.Now()))
	require.NoError(t, w.reconciler.Pass(t.Context()))
	require.Empty(t, r.told("user"), "there is time for a try")

	_, _, err := w.store.Acquire(t.Context(), store.LeaseRequest{GrantID: leased.ID, Version: 1, Owner: "at it", Now: r.clock.Now(), Until: r.clock.Now().Add(hour)})
	require.NoError(t, err)
	r.clock.advance(30 * time.Second)
	require.NoError(t, w.reconciler.Pass(t.Context()))
	r.clock.advance(look)
	require.NoError(t, w.reconciler.Pass(t.Context()))
	w.dispatcher.Wait()
	require.NotEmpty(t, r.get(w, waiting.ID).Warned)
	require.Empty(t, r.get(w, leased.ID).Warned, "somebody may bring the next in time")
	require.Empty(t, r.get(w, endless.ID).Warned)
}

// A grant that never had an access token is announced though none of its messages
// is handled.
func TestAGrantThatWasNeverGivenATokenIsAnnounced(t *testing.T) {
	r := newRig(t)
	w := r.worker("a", served)
	g := r.connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.Access = nil })
	require.NoError(t, w.reconciler.Pass(t.Context()))
	require.Empty(t, r.told("user"), "it has only just come")
	r.clock.advance(slack + time.Second)
	for range 3 {
		require.NoError(t, w.reconciler.Pass(t.Context()))
		w.dispatcher.Wait()
		r.clock.advance(look)
	}
	require.Equal(t, []string{"token.expiring: refresh_failing"}, r.told("user"))
	require.Equal(t, 1, r.get(w, g.ID).Due.Reschedules, "and its message is made again")
}

// A grant may be announced while it is being refreshed: neither takes anything from
// the other.
func TestAnAnnouncementTakesNothingFromARefresh(t *testing.T) {
	t.Run("that goes well", func(t *testing.T) {
		r := newRig(t)
		w := r.worker("a", served)
		g := r.connect(w, meshsim.ConnectSpec{})
		r.clock.advance(hour)
		r.hold(g.Accounts[0].ID)
		answered := r.inBackground(w, due(g))
		r.wait(r.held)
		for range 2 {
			require.NoError(t, w.reconciler.Pass(t.Context()))
			r.clock.advance(look)
		}
		require.NotEmpty(t, r.get(w, g.ID).Warned)
		r.let <- struct{}{}
		require.NoError(t, r.result(answered))
		w.dispatcher.Wait()
		require.Equal(t, int64(2), r.get(w, g.ID).Version)
		require.Empty(t, r.get(w, g.ID).Warned)
		require.Equal(t, []string{"token.expiring: refresh_failing", "token.refreshed: "}, r.told("user"))
		r.soundTokens(w, g.ID)
	})
	t.Run("that fails", func(t *testing.T) {
		r := newRig(t)
		server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) {
			r.held <- struct{}{}
			<-r.let
			out.WriteHeader(http.StatusServiceUnavailable)
		}))
		t.Cleanup(server.Close)
		w := r.worker("a", served, func(d *refresher.Deps) {
			d.Mesh = refresher.NewMesh(refresher.MeshOptions{URL: server.URL, Timeout: patience, Now: r.clock.Now})
		})
		g := r.connect(w, meshsim.ConnectSpec{})
		r.clock.advance(hour)
		answered := r.inBackground(w, due(g))
		r.wait(r.held)
		for range 2 {
			require.NoError(t, w.reconciler.Pass(t.Context()))
			r.clock.advance(look)
		}
		require.NotEmpty(t, r.get(w, g.ID).Warned)
		r.let <- struct{}{}
		require.NoError(t, r.result(answered))
		w.dispatcher.Wait()
		got := r.get(w, g.ID)
		require.Nil(t, got.Lease, "the failure is noted all the same")
		require.Equal(t, 1, got.Attempts)
		require.Equal(t, []string{"token.expiring: refresh_failing"}, r.told("user"))
	})
}

// A grant that is stored with a token that is over is not announced while it is on
// its way to its first refresh.
func TestAGrantOnItsWayToItsFirstRefreshIsNotAnnounced(t *testing.T) {
	for name, access := range map[string]func(now time.Time) *store.Life{
		"never given a token":      func(time.Time) *store.Life { return nil },
		"over":                     func(now time.Time) *store.Life { return lasting(now.Add(-2*hour), hour) },
		"no longer handed out":     func(now time.Time) *store.Life { return lasting(now.Add(5*time.Second-hour), hour) },
		"handed out for a moment":  func(now time.Time) *store.Life { return lasting(now.Add(40*time.Second-hour), hour) },
		"by a clock that is ahead": func(now time.Time) *store.Life { return lasting(now.Add(-2*hour), hour) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			w := r.worker("a", served)
			stored := r.clock.Now()
			if name == "by a clock that is ahead" {
				stored = stored.Add(servedPolicy().ClockSkew)
			}
			g := r.connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) {
				g.Access, g.Due.At = access(r.clock.Now()), stored
			})
			// However often and by however many workers it is looked at.
			for range 5 {
				for _, id := range []string{"b", "c"} {
					require.NoError(t, r.worker(id, served).reconciler.Pass(t.Context()))
				}
				r.clock.advance(slack/5 - time.Second)
			}
			require.NoError(t, w.Due(t.Context(), due(g)))
			w.dispatcher.Wait()
			require.Equal(t, []string{"token.refreshed: "}, r.told("user"))
		})
	}
}

// A grant that nobody refreshes is announced by the first look after the try has
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
			w := r.worker("a", served)
			g := r.connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) {
				g.Access = nil
				if c.ago > 0 {
					g.Access = lasting(r.clock.Now().Add(-c.ago), hour)
				}
				if c.leased {
					g.Lease = &store.Lease{Owner: "at it", Until: r.clock.Now().Add(day)}
				}
			})
			r.clock.advance(min(c.after, slack+servedPolicy().Lead) - time.Second)
			if c.after < day {
				require.NoError(t, w.reconciler.Pass(t.Context()))
				require.Empty(t, r.told("user"))
			}
			r.clock.advance(c.after)
			require.NoError(t, r.worker("b", served).reconciler.Pass(t.Context()))
			require.Equal(t, events.ReasonRefreshFailing, r.get(w, g.ID).Warned)
			require.Equal(t, []string{"token.expiring: refresh_failing"}, r.told("user"))
		})
	}
}
