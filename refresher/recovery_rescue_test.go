package refresher_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// A rescued answer is worth more than what it replaces: it is applied even
// where the stored token set can't be read any more.
func TestARescuedAnswerHealsAnUnreadableGrant(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
	r.failWrites(true)
	require.NoError(t, w.Due(t.Context(), due(g)))
	r.failWrites(false)
	entry := r.entries()[0]

	g = r.get(w, g.ID)
	g.Sealed.Data[len(g.Sealed.Data)-1] ^= 1
	require.NoError(t, w.store.Save(t.Context(), g))

	require.NoError(t, w.Recover(t.Context(), entry))
	got := r.get(w, g.ID)
	require.Equal(t, int64(2), got.Version)
	r.soundTokens(w, g.ID)
}

// An entry that is older than what is stored says nothing about the call that
// came after it.
func TestAnOlderRescuedAnswerLeavesTheOutcomeUnknown(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
	r.failWrites(true)
	require.NoError(t, w.Due(t.Context(), due(g)))
	r.failWrites(false)
	require.NoError(t, w.Recover(t.Context(), r.entries()[0]))

	// The entry is still there when the holder of the next lease dies.
	g = r.get(w, g.ID)
	g.Lease = &store.Lease{Owner: "dead", Until: r.clock.Now().Add(time.Minute)}
	g.Epoch++
	require.NoError(t, w.store.Save(t.Context(), g))
	r.clock.advance(time.Hour)
	require.NoError(t, r.sim.Script("one", meshsim.Failed("no")))
	require.NoError(t, w.Due(t.Context(), due(g)))
	require.Equal(t, 2, r.calls(), "the token at hand is presented")
	require.Equal(t, events.ReasonOutcomeLost, r.get(w, g.ID).Warned)
}

// Whoever applies an entry removes its parts. Another who is at the same entry
// finds them missing, and nothing is wrong.
func TestPartsThatAnotherWorkerHasAppliedAreNotMissed(t *testing.T) {
	r := newRig(t)
	answer := heavyBody(t, refresher.Answer{
		Accounts: []refresher.AnsweredAccount{{ID: "one", AccessToken: text("a")}}, RefreshToken: text(strings.Repeat("r", 700_000)),
	})
	mesh := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write(answer)
	}))
	t.Cleanup(mesh.Close)
	r.meshURL = mesh.URL
	r.dbTimeout = patience
	a, b := r.worker("a"), r.worker("b")
	g := r.connect(a, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
	r.failWrites(true)
	require.NoError(t, a.Due(t.Context(), due(g)))
	r.failWrites(false)
	require.NotEmpty(t, r.messages(r.subjects.RecoveryStream(), r.subjects.RecoveryPart(g.ID)))
	entry := r.messages(r.subjects.RecoveryStream(), r.subjects.Recovery(g.ID))[0].Data

	var met atomic.Bool
	applied := make(chan error, 1)
	r.db.Proxy().Swallow(func(command, collection string) bool {
		if command == "find" && collection == "grants" && met.CompareAndSwap(false, true) { // the answer to a is on its way
			applied <- b.Recover(t.Context(), entry)
		}
		return false
	})
	require.NoError(t, a.Recover(t.Context(), entry))
	require.NoError(t, r.result(applied))
	require.Equal(t, int64(2), r.get(a, g.ID).Version)
	require.NoError(t, a.Recover(t.Context(), entry), "its acknowledgement may be lost")
}
