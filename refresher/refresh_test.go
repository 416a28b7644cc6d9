package refresher_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

func TestARefreshFromLeaseToEvent(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one", Name: "One"}, {ID: "two", Name: "Two"}}})
	require.NoError(t, w.Due(t.Context(), due(g)))

	got := r.get(w, g.ID)
	require.Equal(t, int64(2), got.Version)
	require.Equal(t, int64(1), got.Applied)
	require.Nil(t, got.Lease)
	require.Nil(t, got.Outbox, "everything was sent")
	require.Equal(t, w.dispatcher.Stream(got.ID), got.Due.Stream)
	require.Equal(t, []string{"token.refreshed: "}, r.told("user"))
	require.NotNil(t, r.schedule(g.ID))
	r.soundTokens(w, g.ID)
}

func TestDuplicateAndStaleMessagesCallNobody(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.connect(w, meshsim.ConnectSpec{})
	old := due(g)
	require.NoError(t, w.Due(t.Context(), old))
	scheduled := r.schedule(g.ID)
	require.NotNil(t, scheduled)

	for name, m := range map[string]events.RefreshDue{
		"duplicate":       old,
		"another version": {GrantID: g.ID, BrokerType: g.BrokerType, Version: 7, DueAt: r.get(w, g.ID).Due.At},
		"another time":    {GrantID: g.ID, BrokerType: g.BrokerType, Version: 2, DueAt: r.clock.Now().Add(time.Second)},
		"no such grant":   {GrantID: "nobody", BrokerType: "coinbase", Version: 1, DueAt: r.clock.Now()},
	} {
		require.NoError(t, w.Due(t.Context(), m), name)
	}
	require.Equal(t, 1, r.calls())

	// A stale message may have replaced the current schedule, which is made again.
	require.NoError(t, w.dispatcher.Postpone(t.Context(), old, r.clock.Now().Add(hour)))
	require.NoError(t, w.Due(t.Context(), old))
	require.Equal(t, scheduled.Data, r.schedule(g.ID).Data)
	require.Equal(t, 1, r.calls())
	r.soundTokens(w, g.ID)
}

func TestTwoWorkersAtOnceMakeOneCall(t *testing.T) {
	r := newRig(t)
	a, b := r.worker("a"), r.worker("b")
	g := r.connect(a, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
	r.hold("one")
	first := r.inBackground(a, due(g))
	r.wait(r.held)
	var leased *store.LeasedError
	require.ErrorAs(t, b.Due(t.Context(), due(g)), &leased)
	require.Equal(t, r.clock.Now().Add(time.Minute), leased.Until.UTC())
	_, err := b.Now(t.Context(), r.get(b, g.ID))
	require.ErrorAs(t, err, &leased)
	r.let <- struct{}{}
	require.NoError(t, r.result(first))
	require.NoError(t, b.Due(t.Context(), due(g)), "out of date by now")
	require.Equal(t, 1, r.calls())
	r.soundTokens(a, g.ID)
}

func TestNowRefreshesBeforeTheTime(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.Due.At = r.clock.Now().Add(hour) })
	got, err := w.Now(t.Context(), g)
	require.NoError(t, err)
	require.Equal(t, int64(2), got.Version)
	_, err = w.Now(t.Context(), g)
	require.ErrorIs(t, err, store.ErrStale)
	require.Equal(t, 1, r.calls())
}

func TestTheAnswerIsKeptWhenTheCallerLeaves(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g := r.connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
	r.hold("one")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Due(ctx, due(g)) }()
	r.wait(r.held)
	cancel()
	r.let <- struct{}{}
	require.NoError(t, r.result(done))
	require.Equal(t, int64(2), r.get(w, g.ID).Version)
	require.Equal(t, []string{"token.refreshed: "}, r.told("user"))
	r.soundTokens(w, g.ID)
}

func TestWhatARequestBrings(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	onRequest := meshsim.Institution{Rotation: meshsim.RotateOnRequest, AccessLifetime: hour, RefreshLifetime: 90 * day}

	t.Run("no wish for a new refresh token before its time", func(t *testing.T) {
		g := r.connect(w, meshsim.ConnectSpec{Institution: &onRequest})
		require.NoError(t, w.Due(t.Context(), due(g)))
		chain, _ := r.sim.Ledger().Chain(g.Accounts[0].ID)
		require.Len(t, chain.Refresh, 1)
	})
	t.Run("a wish for a new one when it is time", func(t *testing.T) {
		g := r.connect(w, meshsim.ConnectSpec{Institution: &onRequest}, func(g *store.Grant) { g.Refresh = lasting(r.clock.Now().Add(-89*day), 90*day) })
		require.NoError(t, w.Due(t.Context(), due(g)))
		chain, _ := r.sim.Ledger().Chain(g.Accounts[0].ID)
		require.Len(t, chain.Refresh, 2)
		require.Equal(t, r.clock.Now(), r.get(w, g.ID).Refresh.Since.UTC())
		r.soundTokens(w, g.ID)
	})
	t.Run("the access token where the broker is known to need it", func(t *testing.T) {
		g := r.connect(w, meshsim.ConnectSpec{BrokerType: "weBull"})
		require.NoError(t, w.Due(t.Context(), due(g)))
		require.Equal(t, int64(2), r.get(w, g.ID).Version)
	})
	t.Run("the access token where the broker turns out to need it", func(t *testing.T) {
		g := r.connect(w, meshsim.ConnectSpec{BrokerType: "picky", Institution: &meshsim.Institution{NeedsAccessToken: true, AccessLifetime: hour}})
		require.NoError(t, w.Due(t.Context(), due(g)))
		g = r.get(w, g.ID)
		require.True(t, g.SendAccess)
		require.NoError(t, w.Due(t.Context(), due(g)))
		require.Equal(t, int64(2), r.get(w, g.ID).Version)
		r.soundTokens(w, g.ID)
	})
}

func TestFailuresAreStored(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	for name, c := range map[string]struct {
		action meshsim.Action
		state  store.State
		told   []string
	}{
		"reset":  {meshsim.Reset(), store.Active, nil},
		"busy":   {meshsim.HTTPStatus(429), store.Active, nil},
		"failed": {meshsim.Failed("no"), store.Active, []string{"token.expiring: rejected"}},
		"mfa":    {meshsim.MFARequired(), store.MustAct, []string{"token.expiring: mfa_required"}},
	} {
		g := r.connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: name}}}, func(g *store.Grant) { g.UserID = name })
		require.NoError(t, r.sim.Script(name, c.action))
		require.NoError(t, w.Due(t.Context(), due(g)), name)
		got := r.get(w, g.ID)
		require.Equal(t, c.state, got.State, name)
		version := int64(1)
		if name == "mfa" { // the interim access token is kept
			version = 2
		}
		require.Equal(t, version, got.Version, name)
		require.Nil(t, got.Lease, name)
		require.Equal(t, c.told, r.told(name))
		require.Equal(t, name == "reset", got.Unknown != nil)
	}
}

func TestRefusedCredentialsPutEverythingOff(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	g, other := r.connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}}), r.connect(w, meshsim.ConnectSpec{BrokerType: "other"})
	r.refuseCredentials()
	require.NoError(t, w.Due(t.Context(), due(g)))
	var later *refresher.LaterError
	require.ErrorAs(t, w.Due(t.Context(), due(other)), &later)
	require.Equal(t, refresher.LaterError{After: 10 * time.Second, Why: "credentials", LastTry: *w.settler.Policy.LastTry(other)}, *later)
	require.Equal(t, 1, r.calls())
	require.Equal(t, store.Active, r.get(w, g.ID).State)
}

// TestMessagesThatCallNobodyDoNotHideFailures: they must not look like a
// broker that answers.
func TestMessagesThatCallNobodyDoNotHideFailures(t *testing.T) {
	r := newRig(t)
	w := r.worker("a", func(d *refresher.Deps) { d.Limits.BreakerFailures = 2 })
	for range 2 {
		g := r.connect(w, meshsim.ConnectSpec{})
		require.NoError(t, r.sim.Script(g.Accounts[0].ID, meshsim.HTTPStatus(500)))
		require.NoError(t, w.Due(t.Context(), due(g)))
		stale := due(g)
		err := w.Due(t.Context(), stale)
		var later *refresher.LaterError
		if err != nil {
			require.ErrorAs(t, err, &later)
		}
	}
	var later *refresher.LaterError
	require.ErrorAs(t, w.Due(t.Context(), due(r.connect(w, meshsim.ConnectSpec{}))), &later)
	require.Equal(t, "breaker", later.Why)
}

func TestWithoutKMSNothingIsSpent(t *testing.T) {
	r := newRig(t)
	_, err := r.worker("maker").prints.Key(t.Context()) // under a data key of its own
	require.NoError(t, err)
	writer, w := r.worker("writer"), r.worker("a")
	g := r.connect(writer, meshsim.ConnectSpec{})

	r.kms.Faults().Always(kmssim.ServiceUnavailable)
	require.ErrorIs(t, w.Due(t.Context(), due(g)), envelope.ErrKMS)
	require.Equal(t, g, r.get(w, g.ID), "not even a lease was taken")

	r.kms.Faults().Clear()
	r.clock.advance(time.Minute) // the pause after a failure
	_, err = w.prints.Sealer(t.Context(), "user")
	require.NoError(t, err)
	r.kms.Faults().Always(kmssim.ServiceUnavailable)
	require.NoError(t, w.Due(t.Context(), due(g)), "the key to seal is there, the key to open is not")
	require.Zero(t, r.calls())
	got := r.get(w, g.ID)
	require.Equal(t, store.Active, got.State)
	require.Equal(t, 1, got.Attempts)
	require.Nil(t, got.Lease)

	r.kms.Faults().Clear()
	r.clock.advance(time.Minute)
	require.NoError(t, w.Due(t.Context(), due(got)))
	r.soundTokens(w, g.ID)
}

func TestATokenSetThatDoesNotOpen(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	t.Run("was changed: the grant is dead", func(t *testing.T) {
		g := r.connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.UserID = "changed" })
		g.Sealed.Data[len(g.Sealed.Data)-1] ^= 1
		r.alter(g.ID, bson.D{{Key: "sealed.data", Value: g.Sealed.Data}})
		require.NoError(t, w.Due(t.Context(), due(g)))
		got := r.get(w, g.ID)
		require.Equal(t, store.Expired, got.State)
		require.Equal(t, events.ReasonUnreadable, got.Reason)
		require.Equal(t, []string{"token.expired: unreadable"}, r.told("changed"))
	})
	t.Run("its key is missing: a restored key saves it", func(t *testing.T) {
		g := r.connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.UserID = "keyless" })
		r.alter(g.ID, bson.D{{Key: "sealed.key", Value: "missing"}})
		require.NoError(t, w.Due(t.Context(), due(g)))
		got := r.get(w, g.ID)
		require.Equal(t, store.Active, got.State)
		require.Empty(t, r.told("keyless"))
		require.True(t, got.Due.At.After(r.clock.Now()))

		r.alter(g.ID, bson.D{{Key: "sealed.key", Value: g.Sealed.KeyID}})
		require.NoError(t, w.Due(t.Context(), due(got)))
		r.soundTokens(w, g.ID)
	})
	require.Equal(t, 1, r.calls())
}

func TestErasedWhileRefreshing(t *testing.T) {
	for name, erase := range map[string]func(t *testing.T, w *worker, g *store.Grant){
		"gone": func(t *testing.T, w *worker, g *store.Grant) { require.NoError(t, w.store.Delete(t.Context(), g)) },
		"revoked": func(t *testing.T, w *worker, g *store.Grant) {
			g.State, g.Sealed, g.Lease = store.Revoked, envelope.Blob{}, nil
			require.NoError(t, w.store.Save(t.Context(), g))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			w := r.worker("a")
			g := r.connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
			r.hold("one")
			done := r.inBackground(w, due(g))
			r.wait(r.held)
			erase(t, w, r.get(w, g.ID))
			r.let <- struct{}{}
			require.NoError(t, r.result(done))
			require.Empty(t, r.messages(r.subjects.RecoveryStream(), ">"))
			require.Empty(t, r.told("user"))
			require.Nil(t, r.schedule(g.ID))
			if left, err := w.store.Get(t.Context(), g.ID); err == nil {
				require.Equal(t, store.Revoked, left.State)
				require.Empty(t, left.Sealed.Data)
			} else {
				require.ErrorIs(t, err, store.ErrNotFound)
			}
		})
	}
}
