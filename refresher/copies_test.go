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
	w := r.worker("a")
	g, other := r.connect(w, meshsim.ConnectSpec{}), r.connect(w, meshsim.ConnectSpec{})
	for _, id := range []string{g.ID, g.ID, other.ID} {
		for _, subject := range []string{r.subjects.Recovery(id), r.subjects.RecoveryPart(id), r.subjects.DeadLetter(id, "recovery")} {
			_, err := r.js.Publish(t.Context(), subject, []byte("sealed"))
			require.NoError(t, err)
		}
	}
	g.State, g.Reason = store.Revoked, events.ReasonDisconnected
	w.settler.Schedule(g, nil)
	require.NoError(t, w.settler.Announce(g, events.TokenRevoked, events.ReasonDisconnected))
	require.NoError(t, w.store.Save(t.Context(), g))
	require.NoError(t, w.dispatcher.Deliver(t.Context(), g))
	_, err := w.store.Get(t.Context(), g.ID)
	require.ErrorIs(t, err, store.ErrNotFound)
	require.Empty(t, r.messages(r.subjects.RecoveryStream(), r.subjects.Recovery(g.ID)))
	require.Empty(t, r.messages(r.subjects.RecoveryStream(), r.subjects.RecoveryPart(g.ID)))
	require.Len(t, r.messages(r.subjects.RecoveryStream(), r.subjects.RecoveryPart(other.ID)), 1)
	require.Empty(t, r.messages(r.subjects.DeadLetterStream(), r.subjects.DeadLettersOf(g.ID)))
	require.Len(t, r.messages(r.subjects.RecoveryStream(), r.subjects.Recovery(other.ID)), 1)
	require.Len(t, r.messages(r.subjects.DeadLetterStream(), r.subjects.DeadLettersOf(other.ID)), 1)
}

// What can't be erased in one place keeps no other.
func TestARevokedGrantTakesTheCopiesAlongThatCanBeErased(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.connect(w, meshsim.ConnectSpec{})
	_, err := r.js.Publish(t.Context(), r.subjects.DeadLetter(g.ID, "recovery"), []byte("sealed"))
	require.NoError(t, err)
	require.NoError(t, r.js.DeleteStream(t.Context(), r.subjects.RecoveryStream()))
	g.State, g.Reason = store.Revoked, events.ReasonDisconnected
	w.settler.Schedule(g, nil)
	require.NoError(t, w.settler.Announce(g, events.TokenRevoked, events.ReasonDisconnected))
	require.NoError(t, w.store.Save(t.Context(), g))
	require.ErrorIs(t, w.dispatcher.Deliver(t.Context(), g), jetstream.ErrStreamNotFound)
	require.Empty(t, r.messages(r.subjects.DeadLetterStream(), r.subjects.DeadLettersOf(g.ID)))
	r.get(w, g.ID) // the record stays until all is erased
}

// A user may connect anew while a grant's last event is on its way. An answer to
// the new tokens that waits for the database then is no copy of the old ones.
func TestARevokedGrantLeavesTheAnswersOfTheNextConnect(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	account := meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}}
	first := r.connect(w, account)
	r.failWrites(true)
	require.NoError(t, w.Due(t.Context(), due(first)))
	r.failWrites(false)
	revoked := r.get(w, first.ID)
	revoked.State, revoked.Lease = store.Revoked, nil
	w.settler.Schedule(revoked, nil)
	require.NoError(t, w.settler.Announce(revoked, events.TokenRevoked, events.ReasonDisconnected))
	require.NoError(t, w.store.Save(t.Context(), revoked))

	require.NoError(t, w.store.Delete(t.Context(), revoked)) // by another worker
	r.clock.advance(time.Second)
	next := r.connect(w, account)
	require.Equal(t, first.ID, next.ID)
	r.failWrites(true)
	require.NoError(t, w.Due(t.Context(), due(next)))
	r.failWrites(false)
	require.Len(t, r.entries(), 2)

	require.NoError(t, w.dispatcher.Deliver(t.Context(), revoked))
	require.Len(t, r.entries(), 1)
	require.NoError(t, w.Recover(t.Context(), r.entries()[0]))
	require.Equal(t, int64(2), r.get(w, next.ID).Version)
	r.soundTokens(w, next.ID)
}
