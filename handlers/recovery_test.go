package handlers_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
)

func TestAnAnswerThatTheDatabaseRefusesIsRescued(t *testing.T) {
	r := newRig(t)
	a := r.Worker("a")
	g := r.Connect(a, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}, {ID: "two"}}})
	r.FailWrites(true)
	require.NoError(t, a.HandleDue(t.Context(), due(g)))
	entries := r.RecoveryEntries()
	require.Len(t, entries, 1)
	require.NotContains(t, string(entries[0]), "sim-", "sealed")
	require.NotContains(t, string(entries[0]), g.UserID)
	require.Equal(t, int64(1), r.Get(a, g.ID).Version)
	require.Error(t, a.Recover(t.Context(), entries[0]), "not yet")

	r.FailWrites(false)
	b := r.Worker("b")
	require.NoError(t, b.Recover(t.Context(), entries[0]))
	got := r.Get(b, g.ID)
	require.Equal(t, int64(2), got.Version)
	require.Nil(t, got.Lease)
	require.Nil(t, got.Outbox)
	r.RequireSoundTokens(b, g.ID)

	require.NoError(t, b.Recover(t.Context(), entries[0]), "delivered twice")
	require.Equal(t, int64(2), r.Get(b, g.ID).Version)
	require.Equal(t, []string{"token.refreshed: "}, r.LifecycleEvents("user"))

	r.Clock.Advance(got.Due.At.Sub(r.Clock.Now()))
	require.NoError(t, b.HandleDue(t.Context(), due(got)))
	again := r.Get(b, g.ID)
	require.NoError(t, b.Recover(t.Context(), entries[0]), "delivered late")
	require.Equal(t, again, r.Get(b, g.ID), "its tokens were in it")
	require.Empty(t, r.leftovers(b, g))
}

func TestALateHolderDoesNotOverwrite(t *testing.T) {
	r := newRig(t)
	a, b := r.Worker("a"), r.Worker("b")
	grace := meshsim.Institution{Grace: hour, GraceMode: meshsim.GraceRotate, AccessLifetime: hour, RefreshLifetime: 90 * day}
	g := r.Connect(a, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}, Institution: &grace})
	r.Block("one")
	first := make(chan error, 1)
	go func() { first <- a.HandleDue(context.Background(), due(g)) }()
	r.Wait(r.Blocked)
	r.Clock.Advance(2 * time.Minute) // the lease of the first runs out during its call
	require.NoError(t, b.HandleDue(t.Context(), due(g)))
	won := r.Get(b, g.ID)
	require.Equal(t, int64(2), won.Applied)

	before, err := a.Tokens(t.Context(), won)
	require.NoError(t, err)
	r.Unblock <- struct{}{}
	require.NoError(t, r.Result(first))
	require.Equal(t, 1, r.Logs.FilterMessageSnippet("older than what is stored").Len())
	require.Equal(t, []string{"token.refreshed: "}, r.LifecycleEvents("user"))
	set, err := a.Tokens(t.Context(), r.Get(a, g.ID))
	require.NoError(t, err)
	require.Equal(t, before.RefreshToken, set.RefreshToken)
	require.Equal(t, before.Accounts, set.Accounts)
	// Nobody can tell what the institution makes of the tokens that came late.
	late := r.leftovers(a, g)
	require.Len(t, late, 1)
	require.Len(t, set.Spare, 2, "a refresh token and an access token")
	require.Equal(t, fmt.Sprintf(`{"refreshTokens":[%q]}`, set.Spare[0].Reveal()), late[0])
	for _, token := range set.Spare {
		_, ok := r.Sim.Ledger().ChainOf(token)
		require.True(t, ok)
	}
	valid, why := r.Sim.Ledger().RefreshTokenState(set.RefreshToken)
	require.True(t, valid, why)
}
