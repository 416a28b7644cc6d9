package refresher_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/refresher"
)

// A refresh token that may have been replaced by a lost one is taken for a
// moment longer at best: its next try must not wait behind a backlog.
func TestATryAfterALostAnswerHasALaneOfItsOwn(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.Connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
	require.NoError(t, w.Dispatcher.Deliver(t.Context(), g))
	require.NoError(t, r.Sim.Script("one", meshsim.Drop()))
	require.NoError(t, w.HandleDue(t.Context(), due(g)))
	got := r.Get(w, g.ID)
	require.NotNil(t, got.Unknown)
	scheduled := r.schedule(g.ID)
	require.Equal(t, r.Subjects.RefreshUrgent(), scheduled.Header.Get("Nats-Schedule-Target"))
	require.Contains(t, string(scheduled.Data), `"unknown":true`)
}

func TestAnUnknownOutcomeGoesBeforeAllElse(t *testing.T) {
	c := newClock(t0)
	q := must(refresher.NewQueue(refresher.QueueOptions{Limits: newLimits(wide(), c), Slots: 1, Room: 10, Now: c.Now}))
	first, err := q.Enter(t.Context(), "a", in(0))
	require.NoError(t, err)
	out := make(chan arrival, 10)
	arrive(t.Context(), q, out, "nothing at hand", "a", refresher.Urgency{})
	arrive(t.Context(), q, out, "unknown", "a", refresher.Urgency{Unknown: true, Idle: true, ExpiresAt: t0.Add(time.Hour)})
	first(nil)
	got := <-out
	require.Equal(t, "unknown", got.name)
	got.done(nil)
	require.Equal(t, "nothing at hand", (<-out).name)
}
