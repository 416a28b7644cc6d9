package refresher_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// challenged is a worker with a grant whose refresh waits for the code 246810.
func challenged(t *testing.T) (r *rig, w *worker, g *store.Grant) {
	t.Helper()
	r = newRig(t)
	w = r.worker("w")
	institution := meshsim.DefaultInstitution("vanguard")
	institution.MFACode = "246810"
	g = r.connect(w, meshsim.ConnectSpec{BrokerType: "vanguard", Institution: &institution})
	before := g.Version
	require.NoError(t, w.Due(t.Context(), due(g)))
	g = r.get(w, g.ID)
	require.Equal(t, store.MustAct, g.State)
	require.Equal(t, before+1, g.Version)
	require.NotNil(t, g.MFA)
	require.Equal(t, []string{"token.expiring: mfa_required"}, r.told("user"))
	return r, w, g
}

func TestACodeCompletesARefresh(t *testing.T) {
	t.Parallel()
	r, w, g := challenged(t)
	set, err := w.Tokens(t.Context(), g)
	require.NoError(t, err)
	require.False(t, set.Interim.Empty())
	require.False(t, set.Accounts[0].AccessToken.Equal(set.Interim), "an interim access token is handed out")

	_, err = w.Complete(t.Context(), g, text("000000"))
	require.ErrorIs(t, err, refresher.ErrCodeRefused)
	again := r.get(w, g.ID)
	require.Equal(t, store.MustAct, again.State, "a wrong code ends nothing")
	require.Equal(t, 1, again.MFA.Refused)
	require.Nil(t, again.Lease)

	done, err := w.Complete(t.Context(), again, text("246810"))
	require.NoError(t, err)
	require.Equal(t, store.Active, done.State)
	require.Nil(t, done.MFA)
	require.Equal(t, []string{"token.expiring: mfa_required", "token.refreshed: "}, r.told("user"))
	set, err = w.Tokens(t.Context(), r.get(w, g.ID))
	require.NoError(t, err)
	require.True(t, set.Interim.Empty())
	r.soundTokens(w, g.ID)
	_, err = w.Complete(t.Context(), done, text("246810"))
	require.ErrorIs(t, err, refresher.ErrNoStep)
	_, err = w.Complete(t.Context(), again, text("246810"))
	require.ErrorIs(t, err, store.ErrStale, "a code for another version")
	for _, e := range r.logs.All() {
		require.NotContains(t, e.Message, "246810")
		for _, f := range e.Context {
			require.NotContains(t, f.String, "246810")
		}
	}
}

func TestCodesThatAreNotPresented(t *testing.T) {
	t.Parallel()
	r, w, g := challenged(t)
	calls := r.calls()
	for n := range 5 {
		_, err := w.Complete(t.Context(), g, text("000000"))
		require.ErrorIs(t, err, refresher.ErrCodeRefused, n)
		g = r.get(w, g.ID)
	}
	_, err := w.Complete(t.Context(), g, text("246810"))
	require.ErrorIs(t, err, refresher.ErrNoStep, "guessing ends")
	require.Equal(t, calls+5, r.calls())

	r, w, g = challenged(t)
	calls = r.calls()
	r.clock.advance(g.MFA.Until.Sub(r.clock.Now()))
	_, err = w.Complete(t.Context(), g, text("246810"))
	require.ErrorIs(t, err, refresher.ErrCodeLate)
	require.Equal(t, calls, r.calls())
}

// TestACodeWaitsForTheLeaseAndTheLimits: it is as much a refresh as any other.
func TestACodeWaitsForTheLease(t *testing.T) {
	t.Parallel()
	r, w, g := challenged(t)
	_, _, err := w.store.Acquire(t.Context(), store.LeaseRequest{GrantID: g.ID, Version: g.Version, Owner: "other", Now: r.clock.Now(), Until: r.clock.Now().Add(time.Minute)})
	require.NoError(t, err)
	var leased *store.LeasedError
	_, err = w.Complete(t.Context(), g, text("246810"))
	require.ErrorAs(t, err, &leased)
	w.Stop()
	_, err = w.Complete(t.Context(), g, text("246810"))
	require.ErrorIs(t, err, refresher.ErrStopping)
}
