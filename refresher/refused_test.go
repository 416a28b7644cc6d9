package refresher_test

import (
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/handlers/tokens"
	"github.com/latchkey/latchkey/refresher"
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
	r.t.Helper()
	s, err := tokens.New(tokens.Options{
		Store: w.store, Refresher: w.Refresher, Subjects: r.subjects, Config: config.Default().Tokens, ClockSkew: skew,
		Now: r.clock.Now, Log: r.log, Metrics: prometheus.NewRegistry(),
	})
	require.NoError(r.t, err)
	return s
}

// report asks for the user's tokens, and names some as refused.
func (a asking) report(refused ...events.RefusedToken) events.TokenReply {
	a.r.t.Helper()
	reply, err := a.Get(a.r.t.Context(), events.TokenRequest{UserID: "user", Refused: refused}, &audit.Record{})
	require.NoError(a.r.t, err)
	require.Len(a.r.t, reply.Refused, len(refused))
	return reply
}

// lifetimes are what institutions may say about the life of their access tokens.
var lifetimes = map[string]time.Duration{"of an hour": hour, "of a minute": time.Minute, "that nobody states": 0}

func withLife(life time.Duration) (meshsim.ConnectSpec, func(*store.Grant)) {
	institution := meshsim.Institution{AccessLifetime: life, RevokeOldAccess: true}
	return meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}, Institution: &institution}, func(g *store.Grant) {
		g.Refresh = endless(g.ConnectedAt)
		if g.Access = endless(g.ConnectedAt); life > 0 {
			g.Access = lasting(g.ConnectedAt, life)
		}
		g.Accounts[0].ExpiresAt = g.Access.ExpiresAt
		g.Due = servedPolicy().Next(g)
	}
}

func TestATokenThatWasRefusedIsRefreshedOnceHoweverManyReportIt(t *testing.T) {
	for name, life := range lifetimes {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			workers := []asking{r.asking(r.worker("a")), r.asking(r.worker("b")), r.asking(r.worker("c"))}
			spec, change := withLife(life)
			g := r.connect(workers[0].w, spec, change)
			before := workers[2].report() // it now keeps what it has read
			require.Equal(t, int64(1), before.Expiries[0].Version)
			require.Equal(t, g.ConnectedAt, before.Expiries[0].ObtainedAt.UTC())
			r.clock.advance(10 * time.Second)

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
				require.Equal(t, r.clock.Now(), reply.Expiries[0].ObtainedAt.UTC())
				require.Nil(t, reply.Expiries[0].RefreshFailing)
				require.False(t, reply.AccessTokens[0].AccessToken.Equal(before.AccessTokens[0].AccessToken))
			}
			require.Equal(t, 1, r.calls())

			// On a worker that has not heard of the new version.
			require.Equal(t, events.RefusedTooSoon, workers[2].report(events.RefusedToken{GrantID: g.ID, Version: 2}).Refused[0].Outcome)
			require.Equal(t, 1, r.calls())
			r.soundTokens(workers[0].w, g.ID)
		})
	}
}

func TestWhoeverReportsEveryTokenSpendsNoRefreshes(t *testing.T) {
	for name, life := range map[string]time.Duration{"of an hour": hour, "that nobody states": 0} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			workers := []asking{r.asking(r.worker("a")), r.asking(r.worker("b"))}
			spec, change := withLife(life)
			g := r.connect(workers[0].w, spec, change)
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
				r.clock.advance(15 * time.Second)
			}
			require.Equal(t, 5, r.calls(), "25 minutes, and one report counts in five")
			r.soundTokens(workers[0].w, g.ID)
		})
	}
}

func TestAReportWhoseRefreshFailsIsNoReasonForAnother(t *testing.T) {
	for name, failure := range map[string]meshsim.Action{
		"transient": meshsim.HTTPStatus(500), "rate_limited": meshsim.HTTPStatus(429),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			a, b := r.asking(r.worker("a")), r.asking(r.worker("b"))
			spec, change := withLife(0)
			g := r.connect(a.w, spec, change)
			require.Nil(t, g.Due, "nothing is due")
			b.report()
			require.NoError(t, r.sim.Script("one", failure))
			token := events.RefusedToken{GrantID: g.ID, Version: 1}
			for _, at := range []asking{a, b, a, b} {
				reply := at.report(token)
				require.Equal(t, events.RefusedBusy, reply.Refused[0].Outcome)
				require.Positive(t, reply.Refused[0].RetryAfterSeconds)
				require.Equal(t, int64(1), reply.Expiries[0].Version, "the token is all there is")
				require.Equal(t, name, reply.Expiries[0].RefreshFailing.Reason)
				require.Equal(t, r.clock.Now(), reply.Expiries[0].RefreshFailing.Since.UTC())
			}
			require.Equal(t, 1, r.calls())

			// The next try has its time, and brings what the reports asked for.
			failing := r.get(a.w, g.ID)
			r.clock.advance(failing.Due.At.Sub(r.clock.Now()))
			require.NoError(t, a.w.Due(t.Context(), due(failing)))
			reply := b.report(token)
			require.Equal(t, events.RefusedReplaced, reply.Refused[0].Outcome)
			require.Nil(t, reply.Expiries[0].RefreshFailing)
			require.Equal(t, 2, r.calls())
			require.Nil(t, r.get(a.w, g.ID).Due, "and nothing is due again")
			r.soundTokens(a.w, g.ID)
		})
	}
}

func TestWhatCanNotBeRefreshedForAReport(t *testing.T) {
	ended := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	r := newRig(t)
	a := r.asking(r.worker("a"))
	for name, change := range map[string]func(*store.Grant){
		"no refresh token":        func(g *store.Grant) { g.Refresh = nil },
		"its refresh token ended": func(g *store.Grant) { g.Refresh.ExpiresAt = &ended },
		"its user must act":       func(g *store.Grant) { g.State, g.Reason = store.MustAct, events.ReasonMFARequired },
	} {
		g := r.connect(a.w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: name}}}, change)
		reply := a.report(events.RefusedToken{GrantID: g.ID, Version: 1})
		require.Equal(t, events.RefusedResult{GrantID: g.ID, Version: 1, Outcome: events.RefusedNotRefreshable}, reply.Refused[0], name)
		require.NoError(t, a.w.store.Delete(t.Context(), r.get(a.w, g.ID)))
	}
	require.Zero(t, r.calls())
}

// A token without a stated life whose refresh token is refused ends with a report.
func TestAReportIsTheEndOfATokenThatHasNoOther(t *testing.T) {
	r := newRig(t)
	a, b := r.asking(r.worker("a")), r.asking(r.worker("b"))
	spec, change := withLife(0)
	g := r.connect(a.w, spec, func(g *store.Grant) {
		change(g)
		g.State, g.Reason, g.Refusals = store.MustAct, events.ReasonRejected, &store.Refusals{At: g.ConnectedAt, Times: 2, Next: g.ConnectedAt}
	})
	require.Len(t, b.report(events.RefusedToken{GrantID: g.ID, Version: 9}).AccessTokens, 1, "not its version")
	for _, at := range []asking{a, b} {
		_, err := at.Get(t.Context(), events.TokenRequest{UserID: "user", Refused: []events.RefusedToken{{GrantID: g.ID, Version: 1}}}, &audit.Record{})
		require.ErrorContains(t, err, events.CodeExpired)
	}
	ended := r.get(a.w, g.ID)
	require.Equal(t, store.Expired, ended.State)
	require.Equal(t, events.ReasonRejected, ended.Reason)
	require.Zero(t, r.calls())
}

func TestAReportIsAboutTheGrantsOfItsUser(t *testing.T) {
	r := newRig(t)
	a := r.asking(r.worker("a"))
	mine := r.connect(a.w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
	other := r.connect(a.w, meshsim.ConnectSpec{BrokerType: "kraken", Accounts: []meshsim.Account{{ID: "two"}}})
	theirs := r.connect(a.w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "three"}}}, func(g *store.Grant) { g.UserID = "somebody else" })

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
	require.Equal(t, int64(1), r.get(a.w, theirs.ID).Version)
	require.Equal(t, int64(1), r.get(a.w, mine.ID).Version)
	require.Equal(t, int64(2), r.get(a.w, other.ID).Version)

	require.ElementsMatch(t, []refresher.BrokerReports{{Broker: "kraken", Reports: 2, Refreshed: 2}, {Broker: "none", Reports: 3}}, a.w.Status().Refused)

	// Where no token can be given, the refusal says so too.
	_, err = a.Get(t.Context(), events.TokenRequest{UserID: "nobody", Refused: []events.RefusedToken{{GrantID: mine.ID, Version: 1}}}, &audit.Record{})
	require.ErrorContains(t, err, events.CodeUnknownUser)
	require.Equal(t, int64(1), r.get(a.w, mine.ID).Version)
}

// A report under whose lease nothing was presented has not counted.
func TestAReportThatCameToNoCallIsNotUsedUp(t *testing.T) {
	r := newRig(t)
	late := r.asking(r.worker("late", func(d *refresher.Deps) { d.Lease, d.CallAndSave = time.Minute, time.Hour }))
	spec, change := withLife(0)
	g := r.connect(late.w, spec, change)
	token := events.RefusedToken{GrantID: g.ID, Version: 1}
	require.Equal(t, events.RefusedBusy, late.report(token).Refused[0].Outcome)
	require.Zero(t, r.calls())
	require.Nil(t, r.get(late.w, g.ID).Refused)
	require.Equal(t, events.RefusedRefreshed, r.asking(r.worker("in time")).report(token).Refused[0].Outcome)
}

// A version may bring no access tokens: the labels of a connect, or a refresh token alone. What
// was refused is there still then.
func TestAReportIsOfTheTokensNotOfTheVersion(t *testing.T) {
	r := newRig(t)
	server := newAnswering(t)
	r.meshURL = server.url
	a := r.asking(r.worker("a"))
	c := r.connector(a.w)
	in := wrapped("user", r.login("one"), 0)
	require.NoError(t, c.Connect(t.Context(), in, r.clock.Now()))
	first := a.report()
	token := first.Expiries[0].Refused()
	require.Equal(t, int64(1), token.Version)
	r.clock.advance(time.Second)
	in.Labels = map[string]string{"is": "new"}
	require.NoError(t, c.Connect(t.Context(), in, r.clock.Now()))
	require.Equal(t, int64(2), r.get(a.w, token.GrantID).Version)

	server.set(written{status: 200, body: body("ok", `{"status":"succeeded","refreshToken":"next"}`)})
	reply := a.report(token)
	require.Equal(t, events.RefusedBusy, reply.Refused[0].Outcome, "a new refresh token is none that a caller can use")
	require.Equal(t, int64(3), reply.Expiries[0].Version)
	require.Equal(t, first.AccessTokens[0].AccessToken, reply.AccessTokens[0].AccessToken)
	require.Equal(t, first.Expiries[0].ObtainedAt, reply.Expiries[0].ObtainedAt)

	server.set(written{status: 200, body: body("ok", `{"status":"succeeded","expiresInSeconds":3600,"accessToken":"new"}`)})
	require.NoError(t, a.w.Due(t.Context(), due(r.get(a.w, token.GrantID))))
	for _, version := range []int64{1, 2, 3} {
		reply = a.report(events.RefusedToken{GrantID: token.GrantID, Version: version})
		require.Equal(t, events.RefusedReplaced, reply.Refused[0].Outcome)
		require.Equal(t, text("new"), reply.AccessTokens[0].AccessToken)
		require.Equal(t, int64(4), reply.Expiries[0].Version)
	}
	require.Equal(t, events.RefusedTooSoon, a.report(reply.Expiries[0].Refused()).Refused[0].Outcome)

	// A refresh that waits for the user brings none either.
	r.clock.advance(config.Default().Tokens.RefusedPause)
	server.set(written{status: 200, body: body("ok", `{"status":"mfaRequired","accessToken":"interim"}`)})
	reply = a.report(reply.Expiries[0].Refused())
	require.Equal(t, events.RefusedNotRefreshable, reply.Refused[0].Outcome)
	require.Equal(t, text("new"), reply.AccessTokens[0].AccessToken)
}
