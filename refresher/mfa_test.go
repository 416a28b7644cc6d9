package refresher_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim/meshsimtest"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/refresher/refreshertest"
	"github.com/latchkey/latchkey/store"
)

// challenged is a worker with a grant whose refresh waits for the code 246810.
func challenged(t *testing.T) (r *rig, w *worker, g *store.Grant) {
	t.Helper()
	r = newRig(t)
	w = r.Worker("w")
	institution := meshsim.DefaultInstitution("vanguard")
	institution.MFACode = "246810"
	g = r.Connect(w, meshsim.ConnectSpec{BrokerType: "vanguard", Institution: &institution})
	before := g.Version
	require.NoError(t, w.HandleDue(t.Context(), due(g)))
	g = r.Get(w, g.ID)
	require.Equal(t, store.MustAct, g.State)
	require.Equal(t, before+1, g.Version)
	require.NotNil(t, g.MFA)
	require.Equal(t, []string{"token.expiring: mfa_required"}, r.LifecycleEvents("user"))
	return r, w, g
}

func TestACodeCompletesARefresh(t *testing.T) {
	t.Parallel()
	r, w, g := challenged(t)
	set, err := w.Tokens(t.Context(), g)
	require.NoError(t, err)
	require.False(t, set.Interim.Empty())
	require.False(t, set.Accounts[0].AccessToken.Equal(set.Interim), "an interim access token is handed out")

	_, err = w.CompleteMFA(t.Context(), g, text("000000"))
	require.ErrorIs(t, err, refresher.ErrCodeRefused)
	again := r.Get(w, g.ID)
	require.Equal(t, store.MustAct, again.State, "a wrong code ends nothing")
	require.Equal(t, 1, again.MFA.Refused)
	require.Nil(t, again.Lease)

	done, err := w.CompleteMFA(t.Context(), again, text("246810"))
	require.NoError(t, err)
	require.Equal(t, store.Active, done.State)
	require.Nil(t, done.MFA)
	require.Equal(t, []string{"token.expiring: mfa_required", "token.refreshed: "}, r.LifecycleEvents("user"))
	set, err = w.Tokens(t.Context(), r.Get(w, g.ID))
	require.NoError(t, err)
	require.True(t, set.Interim.Empty())
	r.RequireSoundTokens(w, g.ID)
	_, err = w.CompleteMFA(t.Context(), done, text("246810"))
	require.ErrorIs(t, err, refresher.ErrNoStep)
	_, err = w.CompleteMFA(t.Context(), again, text("246810"))
	require.ErrorIs(t, err, store.ErrStale, "a code for another version")
	for _, e := range r.Logs.All() {
		require.NotContains(t, e.Message, "246810")
		for _, f := range e.Context {
			require.NotContains(t, f.String, "246810")
		}
	}
}

func TestCodesThatAreNotPresented(t *testing.T) {
	t.Parallel()
	r, w, g := challenged(t)
	calls := r.Calls()
	for n := range 5 {
		_, err := w.CompleteMFA(t.Context(), g, text("000000"))
		require.ErrorIs(t, err, refresher.ErrCodeRefused, n)
		g = r.Get(w, g.ID)
	}
	_, err := w.CompleteMFA(t.Context(), g, text("246810"))
	require.ErrorIs(t, err, refresher.ErrNoStep, "guessing ends")
	require.Equal(t, calls+5, r.Calls())

	r, w, g = challenged(t)
	calls = r.Calls()
	r.Clock.Advance(g.MFA.Until.Sub(r.Clock.Now()))
	_, err = w.CompleteMFA(t.Context(), g, text("246810"))
	require.ErrorIs(t, err, refresher.ErrCodeLate)
	require.Equal(t, calls, r.Calls())
}

// TestWhyACodeIsRefused: an expired code is told from a wrong one where Mesh's words do,
// whichever form the refusal has.
func TestWhyACodeIsRefused(t *testing.T) {
	r := newRig(t)
	server := meshsimtest.NewServer(t)
	r.MeshURL = server.URL
	w := r.Worker("a")
	again := body("ok", `{"status":"mfaRequired","accessToken":"interim-2"}`)
	for i, c := range []struct {
		answer  meshsimtest.Response
		expired bool
	}{
		{meshsimtest.Response{Status: 400, Body: `{"status":"badRequest","errorType":"mfaCodeExpired"}`}, true},
		{meshsimtest.Response{Status: 400, Body: `{"status":"badRequest","errorType":"expired"}`}, true},
		{meshsimtest.Response{Status: 200, Body: `{"status":"ok","errorType":"mfa_code_EXPIRED","content":{"status":"failed"}}`}, true},
		{meshsimtest.Response{Status: 200, Body: strings.Replace(again, `{`, `{"errorType":"codeExpired",`, 1)}, true},
		{meshsimtest.Response{Status: 400, Body: `{"status":"badRequest","errorType":"invalidField"}`}, false},
		{meshsimtest.Response{Status: 200, Body: `{"status":"ok","content":{"status":"failed"}}`}, false},
		{meshsimtest.Response{Status: 200, Body: again}, false},
	} {
		server.Set(meshsimtest.Content(`{"status":"mfaRequired","accessToken":"interim"}`))
		g := r.Connect(w, meshsim.ConnectSpec{BrokerType: fmt.Sprint("broker", i)}, func(g *store.Grant) { g.UserID = fmt.Sprint("user", i) })
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		server.Set(c.answer)
		_, err := w.CompleteMFA(t.Context(), r.Get(w, g.ID), text("246810"))
		require.ErrorIs(t, err, refresher.ErrCodeRefused, c.answer.Body)
		require.Equal(t, c.expired, errors.Is(err, refresher.ErrCodeExpired), c.answer.Body)
		require.NotNil(t, r.Get(w, g.ID).MFA, "another code may be presented")
	}
}

// TestACodeWaitsForTheLeaseAndTheLimits: it is as much a refresh as any other.
func TestACodeWaitsForTheLease(t *testing.T) {
	t.Parallel()
	r, w, g := challenged(t)
	_, _, err := w.Store.Acquire(t.Context(), store.LeaseRequest{GrantID: g.ID, Version: g.Version, Owner: "other", Now: r.Clock.Now(), Until: r.Clock.Now().Add(time.Minute)})
	require.NoError(t, err)
	var leased *store.LeasedError
	_, err = w.CompleteMFA(t.Context(), g, text("246810"))
	require.ErrorAs(t, err, &leased)
	w.Stop()
	_, err = w.CompleteMFA(t.Context(), g, text("246810"))
	require.ErrorIs(t, err, refresher.ErrStopping)
}

// TestTokensThatComeWithTheDemandForACodeAreKept, whatever becomes of the grant
// meanwhile, and where the database is away.
func TestTokensThatComeWithTheDemandForACodeAreKept(t *testing.T) {
	r := newRig(t)
	server := meshsimtest.NewServer(t)
	r.MeshURL = server.URL
	w := r.Worker("a")
	meanwhile := func(*store.Grant) {}
	var g *store.Grant
	server.During = func() { meanwhile(r.Get(w, g.ID)) }
	change := func(change func(*store.Grant)) func(*store.Grant) {
		return func(g *store.Grant) {
			next := g.Clone()
			change(next)
			require.NoError(t, w.Store.Save(t.Context(), next))
		}
	}
	relabel := change(func(g *store.Grant) { g.Labels = map[string]string{"is": "new"} })
	n := 0
	for brought, answer := range map[string]string{
		"both":            `"accessToken":"interim","refreshToken":"next"`,
		"an access token": `"accessToken":"interim"`, "a refresh token": `"refreshToken":"next"`,
	} {
		for name, meanwhileIn := range map[string]func(*store.Grant){
			"nothing happens": func(*store.Grant) {},
			"it changes":      relabel,
			"it is connected anew": change(func(g *store.Grant) {
				with, err := w.Fingerprints.Sealer(t.Context(), g.UserID)
				require.NoError(t, err)
				g.Lease, g.Applied, g.Chain, g.Version = nil, g.Epoch, nil, g.Version+1
				with.SealTo(g, store.TokenSet{RefreshToken: text("of another login"), Origin: store.OriginOf(text("of another login"))}, r.Clock.Now(), true)
			}),
			"the database is away": func(*store.Grant) { r.FailWrites(true) },
		} {
			t.Run(brought+", "+name, func(t *testing.T) {
				n++
				server.Set(meshsimtest.Content(`{"status":"mfaRequired",` + answer + `}`))
				g = r.Connect(w, meshsim.ConnectSpec{BrokerType: fmt.Sprint("broker", n)}, func(g *store.Grant) { g.UserID = fmt.Sprint("user", n) })
				meanwhile = meanwhileIn
				require.NoError(t, w.HandleDue(t.Context(), due(g)))
				r.FailWrites(false)
				for _, entry := range r.Messages(r.Subjects.RecoveryStream(), r.Subjects.Recovery(g.ID)) {
					require.NoError(t, w.Recover(t.Context(), entry.Data))
				}
				got := r.Get(w, g.ID)
				set, err := w.Tokens(t.Context(), got)
				require.NoError(t, err)
				kept := refreshertest.TokensOf(set)
				if strings.Contains(answer, "interim") {
					require.Contains(t, kept, text("interim"))
				}
				if strings.Contains(answer, "next") {
					require.Contains(t, kept, text("next"))
				}
				switch name {
				case "nothing happens", "it changes":
					require.Equal(t, store.MustAct, got.State)
					require.Equal(t, strings.Contains(answer, "interim"), got.MFA != nil)
					require.Equal(t, name == "it changes", len(got.Labels) > 0)
				case "it is connected anew":
					require.Equal(t, store.Active, got.State)
					require.Equal(t, text("of another login"), set.RefreshToken)
					if strings.Contains(answer, "next") {
						require.Equal(t, []string{`{"refreshTokens":["next"]}`}, r.leftovers(got))
					}
				case "the database is away":
					if strings.Contains(answer, "next") {
						require.Equal(t, text("next"), set.RefreshToken, "which is presented now")
					}
				}
			})
		}
	}
}

// The refresh token beside a demand for a code is the grant's if its entry is one of the
// grant's, or of none; another's becomes a dead letter.
func TestWhoseTheRefreshTokenBesideADemandForACodeIs(t *testing.T) {
	r := newRig(t)
	server := meshsimtest.NewServer(t)
	r.MeshURL = server.URL
	w := r.Worker("a")
	const other = `{"account":{"accountId":"other"},"accessToken":"X","refreshToken":"R-other"}`
	for broker, c := range map[string]struct {
		entries, want string
		letters       int
	}{
		"the-grants-behind-anothers": {other + `,{"account":{"accountId":"ACCOUNT"},"accessToken":"I","refreshToken":"R"}`, "R", 1},
		"a-nameless-behind-anothers": {other + `,{"accessToken":"I","refreshToken":"R"}`, "R", 1},
		"anothers-alone":             {other + `,{"account":{"accountId":"ACCOUNT"},"accessToken":"I"}`, "", 1},
		"the-grants":                 {`{"account":{"accountId":"ACCOUNT"},"accessToken":"I","refreshToken":"R"}`, "R", 0},
	} {
		g := r.Connect(w, meshsim.ConnectSpec{BrokerType: broker}, func(g *store.Grant) { g.UserID = broker })
		before, err := w.Tokens(t.Context(), g)
		require.NoError(t, err)
		entries := strings.ReplaceAll(c.entries, "ACCOUNT", g.Accounts[0].ID)
		server.Set(meshsimtest.Response{Status: 200, Body: `{"status":"ok","content":{"status":"mfaRequired","brokerAccountTokens":[` + entries + `]}}`})
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		g = r.Get(w, g.ID)
		require.Equal(t, store.MustAct, g.State, broker)
		set, err := w.Tokens(t.Context(), g)
		require.NoError(t, err)
		want := c.want
		if want == "" {
			want = before.RefreshToken.Reveal()
		}
		require.Equal(t, want, set.RefreshToken.Reveal(), broker)
		letters := r.leftovers(g)
		require.Len(t, letters, c.letters, broker)
		if c.letters > 0 {
			require.Contains(t, letters[0], "R-other")
		}
	}
}
