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

// entries returns the recovery stream's messages.
func (r *rig) entries() [][]byte {
	var out [][]byte
	for _, m := range r.messages(r.subjects.RecoveryStream(), ">") {
		out = append(out, m.Data)
	}
	return out
}

func TestAnAnswerThatTheDatabaseRefusesIsRescued(t *testing.T) {
	r := newRig(t)
	a := r.worker("a")
	g := r.connect(a, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}, {ID: "two"}}})
	r.failWrites(true)
	require.NoError(t, a.Due(t.Context(), due(g)))
	entries := r.entries()
	require.Len(t, entries, 1)
	require.NotContains(t, string(entries[0]), "sim-", "sealed")
	require.NotContains(t, string(entries[0]), g.UserID)
	require.Equal(t, int64(1), r.get(a, g.ID).Version)
	require.Error(t, a.Recover(t.Context(), entries[0]), "not yet")

	r.failWrites(false)
	b := r.worker("b")
	require.NoError(t, b.Recover(t.Context(), entries[0]))
	got := r.get(b, g.ID)
	require.Equal(t, int64(2), got.Version)
	require.Nil(t, got.Lease)
	require.Nil(t, got.Outbox)
	r.soundTokens(b, g.ID)

	require.NoError(t, b.Recover(t.Context(), entries[0]), "delivered twice")
	require.Equal(t, int64(2), r.get(b, g.ID).Version)
	require.Equal(t, []string{"token.refreshed: "}, r.told("user"))

	r.clock.advance(got.Due.At.Sub(r.clock.Now()))
	require.NoError(t, b.Due(t.Context(), due(got)))
	again := r.get(b, g.ID)
	require.NoError(t, b.Recover(t.Context(), entries[0]), "delivered late")
	require.Equal(t, again, r.get(b, g.ID), "its tokens were in it")
	require.Empty(t, r.leftovers(b, g))
}

func TestAWriteWhoseAnswerIsLostIsNotDoneTwice(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.connect(w, meshsim.ConnectSpec{})
	r.db.Proxy().LoseAnswers(func(command, collection string) bool { return command == "update" && collection == "grants" })
	require.NoError(t, w.Due(t.Context(), due(g)))
	r.db.Proxy().LoseAnswers(nil)
	require.Equal(t, int64(2), r.get(w, g.ID).Version, "it was written")
	for _, entry := range r.entries() {
		require.NoError(t, w.Recover(t.Context(), entry))
	}
	require.Equal(t, int64(2), r.get(w, g.ID).Version)
	require.Nil(t, r.get(w, g.ID).Outbox, "its events are sent all the same")
	require.Equal(t, []string{"token.refreshed: "}, r.told("user"))
	r.soundTokens(w, g.ID)
}

func TestBothStoresAwayTheAnswerIsHeldUntilOneIsBack(t *testing.T) {
	t.Parallel()
	for name, back := range map[string]func(r *rig){
		"database": func(r *rig) { r.failWrites(false) },
		"NATS":     func(r *rig) { r.broker.Restart() },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			w := r.worker("a")
			g := r.connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
			r.hold("one")
			done := r.inBackground(w, due(g))
			r.wait(r.held)
			r.failWrites(true)
			r.broker.Stop()
			r.let <- struct{}{}
			r.eventually(func() bool { return r.logs.FilterMessage("an answer can't be stored").Len() >= 2 }, "tried more than once")
			require.Empty(t, done)
			back(r)
			if name == "database" {
				r.eventually(func() bool { return r.get(w, g.ID).Version == 2 }, "stored without NATS")
				r.broker.Restart()
			}
			require.NoError(t, r.result(done))
			if name == "NATS" {
				r.failWrites(false)
				require.NoError(t, w.Recover(t.Context(), r.entries()[0]))
			}
			require.Equal(t, int64(2), r.get(w, g.ID).Version)
			r.soundTokens(w, g.ID)
			require.Equal(t, 1, r.calls())
		})
	}
}

func TestALeaseTakenOverLeavesTheOutcomeUnknown(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}}, func(g *store.Grant) {
		g.Lease = &store.Lease{Owner: "dead", Until: r.clock.Now().Add(time.Minute)}
	})
	r.clock.advance(time.Minute)
	var leased *store.LeasedError
	require.ErrorAs(t, w.Due(t.Context(), due(g)), &leased, "clocks may differ")
	r.clock.advance(10 * time.Second)

	require.NoError(t, r.sim.Script("one", meshsim.Failed("no")))
	require.NoError(t, w.Due(t.Context(), due(g)))
	got := r.get(w, g.ID)
	require.Equal(t, r.clock.Now(), got.Unknown.UTC())
	require.Equal(t, []string{"token.expiring: outcome_lost"}, r.told("user"))
}

func TestARescuedAnswerIsAppliedBeforeTheOldTokenIsPresentedAgain(t *testing.T) {
	r := newRig(t)
	a, b := r.worker("a"), r.worker("b")
	g := r.connect(a, meshsim.ConnectSpec{})
	r.failWrites(true)
	require.NoError(t, a.Due(t.Context(), due(g)))
	r.failWrites(false)
	require.NotNil(t, r.get(a, g.ID).Lease, "which nobody gave back")

	r.clock.advance(2 * time.Minute)
	require.NoError(t, b.Due(t.Context(), due(g)))
	require.Equal(t, 1, r.calls(), "the answer was there")
	got := r.get(b, g.ID)
	require.Equal(t, int64(2), got.Version)
	require.Nil(t, got.Lease)
	require.Nil(t, got.Unknown)
	r.soundTokens(b, g.ID)
}

func TestALateHolderDoesNotOverwrite(t *testing.T) {
	r := newRig(t)
	a, b := r.worker("a"), r.worker("b")
	grace := meshsim.Institution{Grace: hour, GraceMode: meshsim.GraceRotate, AccessLifetime: hour, RefreshLifetime: 90 * day}
	g := r.connect(a, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}, Institution: &grace})
	r.hold("one")
	first := r.inBackground(a, due(g))
	r.wait(r.held)
	r.clock.advance(2 * time.Minute) // the lease of the first runs out during its call
	require.NoError(t, b.Due(t.Context(), due(g)))
	won := r.get(b, g.ID)
	require.Equal(t, int64(2), won.Applied)

	before, err := a.Tokens(t.Context(), won)
	require.NoError(t, err)
	r.let <- struct{}{}
	require.NoError(t, r.result(first))
	require.Equal(t, 1, r.logs.FilterMessageSnippet("older than what is stored").Len())
	require.Equal(t, []string{"token.refreshed: "}, r.told("user"))
	set, err := a.Tokens(t.Context(), r.get(a, g.ID))
	require.NoError(t, err)
	require.Equal(t, before.RefreshToken, set.RefreshToken)
	require.Equal(t, before.Accounts, set.Accounts)
	// Nobody can tell what the institution makes of the tokens that came late.
	late := r.leftovers(a, g)
	require.Len(t, late, 1)
	require.Len(t, set.Spare, 2, "a refresh token and an access token")
	require.Equal(t, fmt.Sprintf(`{"refreshTokens":[%q]}`, set.Spare[0].Reveal()), late[0])
	for _, token := range set.Spare {
		_, ok := r.sim.Ledger().ChainOf(token)
		require.True(t, ok)
	}
	valid, why := r.sim.Ledger().RefreshTokenState(set.RefreshToken)
	require.True(t, valid, why)
}

func TestRecoverPassesOver(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	rescued := func() (*store.Grant, []byte) {
		g := r.connect(w, meshsim.ConnectSpec{})
		r.failWrites(true)
		require.NoError(t, w.Due(t.Context(), due(g)))
		r.failWrites(false)
		all := r.entries()
		return r.get(w, g.ID), all[len(all)-1]
	}
	t.Run("an erased grant", func(t *testing.T) {
		g, entry := rescued()
		require.NoError(t, w.store.Delete(t.Context(), g))
		require.NoError(t, w.Recover(t.Context(), entry))
		_, err := w.store.Get(t.Context(), g.ID)
		require.ErrorIs(t, err, store.ErrNotFound)
	})
	t.Run("a revoked grant", func(t *testing.T) {
		g, entry := rescued()
		g.State = store.Revoked
		require.NoError(t, w.store.Save(t.Context(), g))
		require.NoError(t, w.Recover(t.Context(), entry))
		require.Equal(t, g, r.get(w, g.ID))
	})
	t.Run("a grant connected anew", func(t *testing.T) {
		g, entry := rescued()
		sealer, err := w.prints.Sealer(t.Context(), "user")
		require.NoError(t, err)
		g.ConnectedAt = g.ConnectedAt.Add(time.Second)
		g.Chain = nil // of a grant that was erased in between
		sealer.SealTo(g, store.TokenSet{RefreshToken: text("of another login")}, g.ConnectedAt, true)
		require.NoError(t, w.store.Save(t.Context(), g))
		require.NoError(t, w.Recover(t.Context(), entry))
		require.Equal(t, int64(1), r.get(w, g.ID).Version)
	})
	t.Run("not a grant connected again with the token that was presented", func(t *testing.T) {
		g, entry := rescued()
		g.ConnectedAt = g.ConnectedAt.Add(time.Second)
		require.NoError(t, w.store.Save(t.Context(), g))
		require.NoError(t, w.Recover(t.Context(), entry))
		require.Equal(t, int64(2), r.get(w, g.ID).Version)
		r.soundTokens(w, g.ID)
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
		require.Equal(t, int64(1), r.get(w, g.ID).Version)
		require.NoError(t, w.Recover(t.Context(), entry))
	})
}

// JetStream drops a message whose Nats-Msg-Id it has seen, and acknowledges it: an
// answer must not get lost to somebody who can tell its id ahead.
func TestNobodyKnowsTheIDOfARescuedAnswerAhead(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	ids := map[string]bool{}
	for n := 1; n <= 2; n++ { // the same grant, connected at the same time, under the same lease
		g := r.connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
		r.failWrites(true)
		require.NoError(t, w.Due(t.Context(), due(g)))
		r.failWrites(false)
		entries := r.messages(r.subjects.RecoveryStream(), r.subjects.Recovery(g.ID))
		require.Len(t, entries, n)
		ids[entries[n-1].Header.Get(jetstream.MsgIDHeader)] = true
		require.NoError(t, w.store.Delete(t.Context(), r.get(w, g.ID)))
	}
	require.Len(t, ids, 2)
	require.NotContains(t, ids, "")
}

// A grant that was erased and connected anew counts its epochs from the start;
// the stream must not take its rescued answer for the one of before.
func TestARescuedAnswerOfAGrantConnectedAnewIsNoDuplicate(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	for n := 1; n <= 2; n++ {
		g := r.connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
		r.failWrites(true)
		require.NoError(t, w.Due(t.Context(), due(g)))
		r.failWrites(false)
		require.Len(t, r.entries(), n)
		if n == 1 {
			require.NoError(t, w.store.Delete(t.Context(), r.get(w, g.ID)))
			r.clock.advance(time.Second)
			continue
		}
		require.NoError(t, w.Recover(t.Context(), r.entries()[1]))
		r.soundTokens(w, g.ID)
	}
}

// A refresh token behind damage is the grant's also when its answer had to wait in the
// recovery stream.
func TestADamagedAnswerIsRescuedAsItWasRead(t *testing.T) {
	p := newPartial(t)
	p.connects(p.published("coinbase", `{"account":{"accountId":"one"},"accessToken":"A","refreshToken":"R0"}`))
	g := p.live(p.w, "u")[0]
	p.server.set(written{status: 200, body: body("ok", `{"status":"succeeded","expiresInSeconds":3600,"brokerAccountTokens":[`+
		`{"x":NaN,"account":{"accountId":"one"},"accessToken":"A1","refreshToken":"R"},{"account":{"accountId":"two"},"accessToken":"A2","refreshToken":"R2"}]}`)})
	p.clock.advance(g.Due.At.Sub(p.clock.Now()))
	p.failWrites(true)
	require.NoError(t, p.w.Due(t.Context(), due(g)))
	p.failWrites(false)
	entries := p.entries()
	require.Len(t, entries, 1)
	require.NoError(t, p.w.Recover(t.Context(), entries[0]))
	set, err := p.w.Tokens(t.Context(), p.get(p.w, g.ID))
	require.NoError(t, err)
	require.Equal(t, "R", set.RefreshToken.Reveal())
}
