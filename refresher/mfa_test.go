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

// TestACodeWaitsForTheLease: it is as much a refresh as any other.
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
