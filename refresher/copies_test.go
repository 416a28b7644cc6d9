package refresher_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

func TestARevokedGrantTakesItsCopiesAlong(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g, other := r.Connect(w, meshsim.ConnectSpec{}), r.Connect(w, meshsim.ConnectSpec{})
	for _, id := range []string{g.ID, g.ID, other.ID} {
		for _, subject := range []string{r.Subjects.Recovery(id), r.Subjects.RecoveryPart(id), r.Subjects.DeadLetter(id, "recovery")} {
			_, err := r.JS.Publish(t.Context(), subject, []byte("sealed"))
			require.NoError(t, err)
		}
	}
	g.State, g.Reason = store.Revoked, events.ReasonDisconnected
	w.Settler.Schedule(g, nil)
	require.NoError(t, w.Settler.Announce(g, events.TokenRevoked, events.ReasonDisconnected))
	require.NoError(t, w.Store.Save(t.Context(), g))
	require.NoError(t, w.Dispatcher.Deliver(t.Context(), g))
	_, err := w.Store.Get(t.Context(), g.ID)
	require.ErrorIs(t, err, store.ErrNotFound)
	require.Empty(t, r.Messages(r.Subjects.RecoveryStream(), r.Subjects.Recovery(g.ID)))
	require.Empty(t, r.Messages(r.Subjects.RecoveryStream(), r.Subjects.RecoveryPart(g.ID)))
	require.Len(t, r.Messages(r.Subjects.RecoveryStream(), r.Subjects.RecoveryPart(other.ID)), 1)
	require.Empty(t, r.Messages(r.Subjects.DeadLetterStream(), r.Subjects.DeadLettersOf(g.ID)))
	require.Len(t, r.Messages(r.Subjects.RecoveryStream(), r.Subjects.Recovery(other.ID)), 1)
	require.Len(t, r.Messages(r.Subjects.DeadLetterStream(), r.Subjects.DeadLettersOf(other.ID)), 1)
}

// What can't be erased in one place keeps no other.
func TestARevokedGrantTakesTheCopiesAlongThatCanBeErased(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.Connect(w, meshsim.ConnectSpec{})
	_, err := r.JS.Publish(t.Context(), r.Subjects.DeadLetter(g.ID, "recovery"), []byte("sealed"))
	require.NoError(t, err)
	require.NoError(t, r.JS.DeleteStream(t.Context(), r.Subjects.RecoveryStream()))
	g.State, g.Reason = store.Revoked, events.ReasonDisconnected
	w.Settler.Schedule(g, nil)
	require.NoError(t, w.Settler.Announce(g, events.TokenRevoked, events.ReasonDisconnected))
	require.NoError(t, w.Store.Save(t.Context(), g))
	require.ErrorIs(t, w.Dispatcher.Deliver(t.Context(), g), jetstream.ErrStreamNotFound)
	require.Empty(t, r.Messages(r.Subjects.DeadLetterStream(), r.Subjects.DeadLettersOf(g.ID)))
	r.Get(w, g.ID) // the record stays until all is erased
}

// A user may connect anew while a grant's last event is on its way. An answer to
// the new tokens that waits for the database then is no copy of the old ones.
func TestARevokedGrantLeavesTheAnswersOfTheNextConnect(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	account := meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}}
	first := r.Connect(w, account)
	r.FailWrites(true)
	require.NoError(t, w.HandleDue(t.Context(), due(first)))
	r.FailWrites(false)
	revoked := r.Get(w, first.ID)
	revoked.State, revoked.Lease = store.Revoked, nil
	w.Settler.Schedule(revoked, nil)
	require.NoError(t, w.Settler.Announce(revoked, events.TokenRevoked, events.ReasonDisconnected))
	require.NoError(t, w.Store.Save(t.Context(), revoked))

	require.NoError(t, w.Store.Delete(t.Context(), revoked)) // by another worker
	r.Clock.Advance(time.Second)
	next := r.Connect(w, account)
	require.Equal(t, first.ID, next.ID)
	r.FailWrites(true)
	require.NoError(t, w.HandleDue(t.Context(), due(next)))
	r.FailWrites(false)
	require.Len(t, r.RecoveryEntries(), 2)

	require.NoError(t, w.Dispatcher.Deliver(t.Context(), revoked))
	require.Len(t, r.RecoveryEntries(), 1)
	require.NoError(t, w.Recover(t.Context(), r.RecoveryEntries()[0]))
	require.Equal(t, int64(2), r.Get(w, next.ID).Version)
	r.RequireSoundTokens(w, next.ID)
}
