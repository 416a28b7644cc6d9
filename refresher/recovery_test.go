package refresher_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
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
	require.Empty(t, r.leftovers(g))
}

func TestAWriteWhoseAnswerIsLostIsNotDoneTwice(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.Connect(w, meshsim.ConnectSpec{})
	r.DB.Proxy().LoseAnswers(func(command, collection string) bool { return command == "update" && collection == "grants" })
	require.NoError(t, w.HandleDue(t.Context(), due(g)))
	r.DB.Proxy().LoseAnswers(nil)
	require.Equal(t, int64(2), r.Get(w, g.ID).Version, "it was written")
	for _, entry := range r.RecoveryEntries() {
		require.NoError(t, w.Recover(t.Context(), entry))
	}
	require.Equal(t, int64(2), r.Get(w, g.ID).Version)
	require.Nil(t, r.Get(w, g.ID).Outbox, "its events are sent all the same")
	require.Equal(t, []string{"token.refreshed: "}, r.LifecycleEvents("user"))
	r.RequireSoundTokens(w, g.ID)
}

func TestBothStoresAwayTheAnswerIsHeldUntilOneIsBack(t *testing.T) {
	t.Parallel()
	for name, back := range map[string]func(r *rig){
		"database": func(r *rig) { r.FailWrites(false) },
		"NATS":     func(r *rig) { r.Broker.Restart() },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			w := r.Worker("a")
			g := r.Connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
			r.Block("one")
			done := r.inBackground(w, due(g))
			r.Wait(r.Blocked)
			r.FailWrites(true)
			r.Broker.Stop()
			r.Unblock <- struct{}{}
			r.Eventually(func() bool { return r.Logs.FilterMessage("an answer can't be stored").Len() >= 2 }, "tried more than once")
			require.Empty(t, done)
			back(r)
			if name == "database" {
				r.Eventually(func() bool { return r.Get(w, g.ID).Version == 2 }, "stored without NATS")
				r.Broker.Restart()
			}
			require.NoError(t, r.Result(done))
			if name == "NATS" {
				r.FailWrites(false)
				require.NoError(t, w.Recover(t.Context(), r.RecoveryEntries()[0]))
			}
			require.Equal(t, int64(2), r.Get(w, g.ID).Version)
			r.RequireSoundTokens(w, g.ID)
			require.Equal(t, 1, r.Calls())
		})
	}
}

func TestALeaseTakenOverLeavesTheOutcomeUnknown(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.Connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}}, func(g *store.Grant) {
		g.Lease = &store.Lease{Owner: "dead", Until: r.Clock.Now().Add(time.Minute)}
	})
	r.Clock.Advance(time.Minute)
	var leased *store.LeasedError
	require.ErrorAs(t, w.HandleDue(t.Context(), due(g)), &leased, "clocks may differ")
	r.Clock.Advance(10 * time.Second)

	require.NoError(t, r.Sim.Script("one", meshsim.Failed("no")))
	require.NoError(t, w.HandleDue(t.Context(), due(g)))
	got := r.Get(w, g.ID)
	require.Equal(t, r.Clock.Now(), got.Unknown.UTC())
	require.Equal(t, []string{"token.expiring: outcome_lost"}, r.LifecycleEvents("user"))
}

func TestARescuedAnswerIsAppliedBeforeTheOldTokenIsPresentedAgain(t *testing.T) {
	r := newRig(t)
	a, b := r.Worker("a"), r.Worker("b")
	g := r.Connect(a, meshsim.ConnectSpec{})
	r.FailWrites(true)
	require.NoError(t, a.HandleDue(t.Context(), due(g)))
	r.FailWrites(false)
	require.NotNil(t, r.Get(a, g.ID).Lease, "which nobody gave back")

	r.Clock.Advance(2 * time.Minute)
	require.NoError(t, b.HandleDue(t.Context(), due(g)))
	require.Equal(t, 1, r.Calls(), "the answer was there")
	got := r.Get(b, g.ID)
	require.Equal(t, int64(2), got.Version)
	require.Nil(t, got.Lease)
	require.Nil(t, got.Unknown)
	r.RequireSoundTokens(b, g.ID)
}

func TestALateHolderDoesNotOverwrite(t *testing.T) {
	r := newRig(t)
	a, b := r.Worker("a"), r.Worker("b")
	grace := meshsim.Institution{Grace: hour, GraceMode: meshsim.GraceRotate, AccessLifetime: hour, RefreshLifetime: 90 * day}
	g := r.Connect(a, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}, Institution: &grace})
	r.Block("one")
	first := r.inBackground(a, due(g))
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
	late := r.leftovers(g)
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

func TestRecoverPassesOver(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	rescued := func() (*store.Grant, []byte) {
		g := r.Connect(w, meshsim.ConnectSpec{})
		r.FailWrites(true)
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		r.FailWrites(false)
		all := r.RecoveryEntries()
		return r.Get(w, g.ID), all[len(all)-1]
	}
	t.Run("an erased grant", func(t *testing.T) {
		g, entry := rescued()
		require.NoError(t, w.Store.Delete(t.Context(), g))
		require.NoError(t, w.Recover(t.Context(), entry))
		_, err := w.Store.Get(t.Context(), g.ID)
		require.ErrorIs(t, err, store.ErrNotFound)
	})
	t.Run("a revoked grant", func(t *testing.T) {
		g, entry := rescued()
		g.State = store.Revoked
		require.NoError(t, w.Store.Save(t.Context(), g))
		require.NoError(t, w.Recover(t.Context(), entry))
		require.Equal(t, g, r.Get(w, g.ID))
	})
	t.Run("a grant connected anew", func(t *testing.T) {
		g, entry := rescued()
		sealer, err := w.Fingerprints.Sealer(t.Context(), "user")
		require.NoError(t, err)
		g.ConnectedAt = g.ConnectedAt.Add(time.Second)
		g.Chain = nil // of a grant that was erased in between
		sealer.SealTo(g, store.TokenSet{RefreshToken: text("of another login")}, g.ConnectedAt, true)
		require.NoError(t, w.Store.Save(t.Context(), g))
		require.NoError(t, w.Recover(t.Context(), entry))
		require.Equal(t, int64(1), r.Get(w, g.ID).Version)
	})
	t.Run("not a grant connected again with the token that was presented", func(t *testing.T) {
		g, entry := rescued()
		g.ConnectedAt = g.ConnectedAt.Add(time.Second)
		require.NoError(t, w.Store.Save(t.Context(), g))
		require.NoError(t, w.Recover(t.Context(), entry))
		require.Equal(t, int64(2), r.Get(w, g.ID).Version)
		r.RequireSoundTokens(w, g.ID)
	})
	t.Run("what can never be applied", func(t *testing.T) {
		g, entry := rescued()
		for name, body := range map[string]string{
			"not JSON": "sim", "nothing": "{}",
			"another epoch": strings.Replace(string(entry), `"epoch":1`, `"epoch":2`, 1),
			"no such key":   strings.Replace(string(entry), g.Sealed.KeyID, "missing", 1),
		} {
			require.NotEqual(t, string(entry), body)
			require.ErrorIs(t, w.Recover(t.Context(), []byte(body)), refresher.ErrRecoveryEntry, name)
		}
		require.Equal(t, int64(1), r.Get(w, g.ID).Version)
		require.NoError(t, w.Recover(t.Context(), entry))
	})
}

// JetStream drops a message whose Nats-Msg-Id it has seen, and acknowledges it: an
// answer must not get lost to somebody who can tell its id ahead.
func TestNobodyKnowsTheIDOfARescuedAnswerAhead(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	ids := map[string]bool{}
	for n := 1; n <= 2; n++ { // the same grant, connected at the same time, under the same lease
		g := r.Connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
		r.FailWrites(true)
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		r.FailWrites(false)
		entries := r.Messages(r.Subjects.RecoveryStream(), r.Subjects.Recovery(g.ID))
		require.Len(t, entries, n)
		ids[entries[n-1].Header.Get(jetstream.MsgIDHeader)] = true
		require.NoError(t, w.Store.Delete(t.Context(), r.Get(w, g.ID)))
	}
	require.Len(t, ids, 2)
	require.NotContains(t, ids, "")
}

// A grant that was erased and connected anew counts its epochs from the start;
// the stream must not take its rescued answer for the one of before.
func TestARescuedAnswerOfAGrantConnectedAnewIsNoDuplicate(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	for n := 1; n <= 2; n++ {
		g := r.Connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
		r.FailWrites(true)
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		r.FailWrites(false)
		require.Len(t, r.RecoveryEntries(), n)
		if n == 1 {
			require.NoError(t, w.Store.Delete(t.Context(), r.Get(w, g.ID)))
			r.Clock.Advance(time.Second)
			continue
		}
		require.NoError(t, w.Recover(t.Context(), r.RecoveryEntries()[1]))
		r.RequireSoundTokens(w, g.ID)
	}
}
