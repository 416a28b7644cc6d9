package handlers_test

import (
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim/meshsimtest"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/handlers/tokens"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/refresher/refreshertest"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
)

// asking is the token service of a worker.
type asking struct {
	r *rig
	w *worker
	*tokens.Service
}

func (r *rig) asking(w *worker) asking {
	return asking{r, w, r.tokenService(w, config.Default().Worker.ClockSkew)}
}

func (r *rig) tokenService(w *worker, skew time.Duration) *tokens.Service {
	r.T.Helper()
	s, err := tokens.New(tokens.Options{
		Store: w.Store, Refresher: w.Refresher, Subjects: r.Subjects, Config: config.Default().Tokens, ClockSkew: skew,
		Now: r.Clock.Now, Log: r.Log, Metrics: prometheus.NewRegistry(),
	})
	require.NoError(r.T, err)
	return s
}

// report asks for the user's tokens, and names some as refused.
func (a asking) report(refused ...events.RefusedToken) events.TokenReply {
	a.r.T.Helper()
	reply, err := a.Get(a.r.T.Context(), events.TokenRequest{UserID: "user", Refused: refused}, &audit.Record{})
	require.NoError(a.r.T, err)
	require.Len(a.r.T, reply.Refused, len(refused))
	return reply
}

func TestATokenThatWasRefusedIsRefreshedOnceHoweverManyReportIt(t *testing.T) {
	for name, life := range refreshertest.Lifetimes {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			workers := []asking{r.asking(r.Worker("a")), r.asking(r.Worker("b")), r.asking(r.Worker("c"))}
			spec, change := refreshertest.WithLifetime(life)
			g := r.Connect(workers[0].w, spec, change)
			before := workers[2].report() // it now keeps what it has read
			require.Equal(t, int64(1), before.Expiries[0].Version)
			require.Equal(t, g.ConnectedAt, before.Expiries[0].ObtainedAt.UTC())
			r.Clock.Advance(10 * time.Second)

			var all sync.WaitGroup
			replies := make([]events.TokenReply, 24)
			for i := range replies {
				all.Go(func() {
					replies[i], _ = workers[i%3].Get(t.Context(), events.TokenRequest{UserID: "user", Refused: []events.RefusedToken{before.Expiries[0].Refused()}}, &audit.Record{})
				})
			}
			all.Wait()
			for _, reply := range replies {
				require.Len(t, reply.AccessTokens, 1)
				require.Contains(t, []string{events.RefusedRefreshed, events.RefusedReplaced}, reply.Refused[0].Outcome)
				require.Equal(t, int64(2), reply.Expiries[0].Version)
				require.Equal(t, r.Clock.Now(), reply.Expiries[0].ObtainedAt.UTC())
				require.Nil(t, reply.Expiries[0].RefreshFailing)
				require.False(t, reply.AccessTokens[0].AccessToken.Equal(before.AccessTokens[0].AccessToken))
			}
			require.Equal(t, 1, r.Calls())

			// On a worker that has not heard of the new version.
			require.Equal(t, events.RefusedTooSoon, workers[2].report(events.RefusedToken{GrantID: g.ID, Version: 2}).Refused[0].Outcome)
			require.Equal(t, 1, r.Calls())
			r.RequireSoundTokens(workers[0].w, g.ID)
		})
	}
}

func TestWhoeverReportsEveryTokenSpendsNoRefreshes(t *testing.T) {
	for name, life := range map[string]time.Duration{"of an hour": hour, "that nobody states": 0} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			workers := []asking{r.asking(r.Worker("a")), r.asking(r.Worker("b"))}
			spec, change := refreshertest.WithLifetime(life)
			g := r.Connect(workers[0].w, spec, change)
			token := events.RefusedToken{GrantID: g.ID, Version: 1}
			pause := config.Default().Tokens.RefusedPause
			for i := range 100 { // every fifteen seconds
				reply := workers[i%2].report(token)
				if out := reply.Refused[0]; out.Outcome == events.RefusedTooSoon {
					require.Equal(t, token.Version, reply.Expiries[0].Version, "what there is, is given")
					require.LessOrEqual(t, out.RetryAfterSeconds, int64(pause/time.Second))
					require.Positive(t, out.RetryAfterSeconds)
				} else {
					require.Equal(t, events.RefusedRefreshed, out.Outcome)
					require.Equal(t, token.Version+1, reply.Expiries[0].Version)
				}
				token.Version = reply.Expiries[0].Version
				r.Clock.Advance(15 * time.Second)
			}
			require.Equal(t, 5, r.Calls(), "25 minutes, and one report counts in five")
			r.RequireSoundTokens(workers[0].w, g.ID)
		})
	}
}

func TestAReportWhoseRefreshFailsIsNoReasonForAnother(t *testing.T) {
	for name, failure := range map[string]meshsim.Action{
		"transient": meshsim.HTTPStatus(500), "rate_limited": meshsim.HTTPStatus(429),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			a, b := r.asking(r.Worker("a")), r.asking(r.Worker("b"))
			spec, change := refreshertest.WithLifetime(0)
			g := r.Connect(a.w, spec, change)
			require.Nil(t, g.Due, "nothing is due")
			b.report()
			require.NoError(t, r.Sim.Script("one", failure))
			token := events.RefusedToken{GrantID: g.ID, Version: 1}
			for _, at := range []asking{a, b, a, b} {
				reply := at.report(token)
				require.Equal(t, events.RefusedBusy, reply.Refused[0].Outcome)
				require.Positive(t, reply.Refused[0].RetryAfterSeconds)
				require.Equal(t, int64(1), reply.Expiries[0].Version, "the token is all there is")
				require.Equal(t, name, reply.Expiries[0].RefreshFailing.Reason)
				require.Equal(t, r.Clock.Now(), reply.Expiries[0].RefreshFailing.Since.UTC())
			}
			require.Equal(t, 1, r.Calls())

			// The next try has its time, and brings what the reports asked for.
			failing := r.Get(a.w, g.ID)
			r.Clock.Advance(failing.Due.At.Sub(r.Clock.Now()))
			require.NoError(t, a.w.HandleDue(t.Context(), due(failing)))
			reply := b.report(token)
			require.Equal(t, events.RefusedReplaced, reply.Refused[0].Outcome)
			require.Nil(t, reply.Expiries[0].RefreshFailing)
			require.Equal(t, 2, r.Calls())
			require.Nil(t, r.Get(a.w, g.ID).Due, "and nothing is due again")
			r.RequireSoundTokens(a.w, g.ID)
		})
	}
}

func TestWhatCanNotBeRefreshedForAReport(t *testing.T) {
	ended := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	r := newRig(t)
	a := r.asking(r.Worker("a"))
	for name, change := range map[string]func(*store.Grant){
		"no refresh token":        func(g *store.Grant) { g.Refresh = nil },
		"its refresh token ended": func(g *store.Grant) { g.Refresh.ExpiresAt = &ended },
		"its user must act":       func(g *store.Grant) { g.State, g.Reason = store.MustAct, events.ReasonMFARequired },
	} {
		g := r.Connect(a.w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: name}}}, change)
		reply := a.report(events.RefusedToken{GrantID: g.ID, Version: 1})
		require.Equal(t, events.RefusedResult{GrantID: g.ID, Version: 1, Outcome: events.RefusedNotRefreshable}, reply.Refused[0], name)
		require.NoError(t, a.w.Store.Delete(t.Context(), r.Get(a.w, g.ID)))
	}
	require.Zero(t, r.Calls())
}

// A token without a stated life whose refresh token is refused ends with a report.
func TestAReportIsTheEndOfATokenThatHasNoOther(t *testing.T) {
	r := newRig(t)
	a, b := r.asking(r.Worker("a")), r.asking(r.Worker("b"))
	spec, change := refreshertest.WithLifetime(0)
	g := r.Connect(a.w, spec, func(g *store.Grant) {
		change(g)
		g.State, g.Reason, g.Refusals = store.MustAct, events.ReasonRejected, &store.Refusals{At: g.ConnectedAt, Times: 2, Next: g.ConnectedAt}
	})
	require.Len(t, b.report(events.RefusedToken{GrantID: g.ID, Version: 9}).AccessTokens, 1, "not its version")
	for _, at := range []asking{a, b} {
		_, err := at.Get(t.Context(), events.TokenRequest{UserID: "user", Refused: []events.RefusedToken{{GrantID: g.ID, Version: 1}}}, &audit.Record{})
		require.ErrorContains(t, err, events.CodeExpired)
	}
	ended := r.Get(a.w, g.ID)
	require.Equal(t, store.Expired, ended.State)
	require.Equal(t, events.ReasonRejected, ended.Reason)
	require.Zero(t, r.Calls())
}

func TestAReportIsAboutTheGrantsOfItsUser(t *testing.T) {
	r := newRig(t)
	a := r.asking(r.Worker("a"))
	mine := r.Connect(a.w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
	other := r.Connect(a.w, meshsim.ConnectSpec{BrokerType: "kraken", Accounts: []meshsim.Account{{ID: "two"}}})
	theirs := r.Connect(a.w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "three"}}}, func(g *store.Grant) { g.UserID = "somebody else" })

	reply, err := a.Get(t.Context(), events.TokenRequest{UserID: "user", BrokerType: "coinbase", Refused: []events.RefusedToken{
		{GrantID: theirs.ID, Version: 1}, {GrantID: "no such grant", Version: 1}, {GrantID: mine.ID, Version: 2}, {GrantID: other.ID, Version: 1}, {GrantID: other.ID, Version: 1},
	}}, &audit.Record{})
	require.NoError(t, err)
	var outcomes []string
	for _, result := range reply.Refused {
		outcomes = append(outcomes, result.Outcome)
	}
	// A grant of the user's is refreshed though the request does not ask for its tokens.
	require.Equal(t, []string{events.RefusedUnknown, events.RefusedUnknown, events.RefusedUnknown, events.RefusedRefreshed, events.RefusedRefreshed}, outcomes)
	require.Len(t, reply.AccessTokens, 1)
	require.Equal(t, "one", reply.AccessTokens[0].AccountID)
	require.Equal(t, int64(1), r.Get(a.w, theirs.ID).Version)
	require.Equal(t, int64(1), r.Get(a.w, mine.ID).Version)
	require.Equal(t, int64(2), r.Get(a.w, other.ID).Version)

	require.ElementsMatch(t, []refresher.BrokerReports{{Broker: "kraken", Reports: 2, Refreshed: 2}, {Broker: "none", Reports: 3}}, a.w.Status().Refused)

	// Where no token can be given, the refusal says so too.
	_, err = a.Get(t.Context(), events.TokenRequest{UserID: "nobody", Refused: []events.RefusedToken{{GrantID: mine.ID, Version: 1}}}, &audit.Record{})
	require.ErrorContains(t, err, events.CodeUnknownUser)
	require.Equal(t, int64(1), r.Get(a.w, mine.ID).Version)
}

// A report under whose lease nothing was presented has not counted.
func TestAReportThatCameToNoCallIsNotUsedUp(t *testing.T) {
	r := newRig(t)
	late := r.asking(r.Worker("late", func(d *refresher.Options) { d.Lease, d.CallAndSave = time.Minute, time.Hour }))
	spec, change := refreshertest.WithLifetime(0)
	g := r.Connect(late.w, spec, change)
	token := events.RefusedToken{GrantID: g.ID, Version: 1}
	require.Equal(t, events.RefusedBusy, late.report(token).Refused[0].Outcome)
	require.Zero(t, r.Calls())
	require.Nil(t, r.Get(late.w, g.ID).RefusedReport)
	require.Equal(t, events.RefusedRefreshed, r.asking(r.Worker("in time")).report(token).Refused[0].Outcome)
}

// A version may bring no access tokens: the labels of a connect, or a refresh token alone. What
// was refused is there still then.
func TestAReportIsOfTheTokensNotOfTheVersion(t *testing.T) {
	r := newRig(t)
	server := meshsimtest.NewServer(t)
	r.MeshURL = server.URL
	a := r.asking(r.Worker("a"))
	c := r.connector(a.w)
	in := wrapped("user", r.login("one"), 0)
	require.NoError(t, c.Connect(t.Context(), in, r.Clock.Now()))
	first := a.report()
	token := first.Expiries[0].Refused()
	require.Equal(t, int64(1), token.Version)
	r.Clock.Advance(time.Second)
	in.Labels = map[string]string{"is": "new"}
	require.NoError(t, c.Connect(t.Context(), in, r.Clock.Now()))
	require.Equal(t, int64(2), r.Get(a.w, token.GrantID).Version)

	server.Set(meshsimtest.Content(`{"status":"succeeded","refreshToken":"next"}`))
	reply := a.report(token)
	require.Equal(t, events.RefusedBusy, reply.Refused[0].Outcome, "a new refresh token is none that a caller can use")
	require.Equal(t, int64(3), reply.Expiries[0].Version)
	require.Equal(t, first.AccessTokens[0].AccessToken, reply.AccessTokens[0].AccessToken)
	require.Equal(t, first.Expiries[0].ObtainedAt, reply.Expiries[0].ObtainedAt)

	server.Set(meshsimtest.Content(`{"status":"succeeded","expiresInSeconds":3600,"accessToken":"new"}`))
	require.NoError(t, a.w.HandleDue(t.Context(), due(r.Get(a.w, token.GrantID))))
	for _, version := range []int64{1, 2, 3} {
		reply = a.report(events.RefusedToken{GrantID: token.GrantID, Version: version})
		require.Equal(t, events.RefusedReplaced, reply.Refused[0].Outcome)
		require.Equal(t, text("new"), reply.AccessTokens[0].AccessToken)
		require.Equal(t, int64(4), reply.Expiries[0].Version)
	}
	require.Equal(t, events.RefusedTooSoon, a.report(reply.Expiries[0].Refused()).Refused[0].Outcome)

	// A refresh that waits for the user brings none either.
	r.Clock.Advance(config.Default().Tokens.RefusedPause)
	server.Set(meshsimtest.Content(`{"status":"mfaRequired","accessToken":"interim"}`))
	reply = a.report(reply.Expiries[0].Refused())
	require.Equal(t, events.RefusedNotRefreshable, reply.Refused[0].Outcome)
	require.Equal(t, text("new"), reply.AccessTokens[0].AccessToken)
}
