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
	w := r.Worker("a")
	g := r.Connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
	r.FailWrites(true)
	require.NoError(t, w.HandleDue(t.Context(), due(g)))
	r.FailWrites(false)
	entry := r.RecoveryEntries()[0]

	g = r.Get(w, g.ID)
	g.Sealed.Data[len(g.Sealed.Data)-1] ^= 1
	require.NoError(t, w.Store.Save(t.Context(), g))

	require.NoError(t, w.Recover(t.Context(), entry))
	got := r.Get(w, g.ID)
	require.Equal(t, int64(2), got.Version)
	r.RequireSoundTokens(w, g.ID)
}

// An entry that is older than what is stored says nothing about the call that
// came after it.
func TestAnOlderRescuedAnswerLeavesTheOutcomeUnknown(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.Connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
	r.FailWrites(true)
	require.NoError(t, w.HandleDue(t.Context(), due(g)))
	r.FailWrites(false)
	require.NoError(t, w.Recover(t.Context(), r.RecoveryEntries()[0]))

	// The entry is still there when the holder of the next lease dies.
	g = r.Get(w, g.ID)
	g.Lease = &store.Lease{Owner: "dead", Until: r.Clock.Now().Add(time.Minute)}
	g.Epoch++
	require.NoError(t, w.Store.Save(t.Context(), g))
	r.Clock.Advance(time.Hour)
	require.NoError(t, r.Sim.Script("one", meshsim.Failed("no")))
	require.NoError(t, w.HandleDue(t.Context(), due(g)))
	require.Equal(t, 2, r.Calls(), "the token at hand is presented")
	require.Equal(t, events.ReasonOutcomeLost, r.Get(w, g.ID).Warned)
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
	r.MeshURL = mesh.URL
	r.DBTimeout = patience
	a, b := r.Worker("a"), r.Worker("b")
	g := r.Connect(a, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
	r.FailWrites(true)
	require.NoError(t, a.HandleDue(t.Context(), due(g)))
	r.FailWrites(false)
	require.NotEmpty(t, r.Messages(r.Subjects.RecoveryStream(), r.Subjects.RecoveryPart(g.ID)))
	entry := r.Messages(r.Subjects.RecoveryStream(), r.Subjects.Recovery(g.ID))[0].Data

	var met atomic.Bool
	applied := make(chan error, 1)
	r.DB.Proxy().Swallow(func(command, collection string) bool {
		if command == "find" && collection == "grants" && met.CompareAndSwap(false, true) { // the answer to a is on its way
			applied <- b.Recover(t.Context(), entry)
		}
		return false
	})
	require.NoError(t, a.Recover(t.Context(), entry))
	require.NoError(t, r.Result(applied))
	require.Equal(t, int64(2), r.Get(a, g.ID).Version)
	require.NoError(t, a.Recover(t.Context(), entry), "its acknowledgement may be lost")
}
