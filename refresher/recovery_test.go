package refresher_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

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
