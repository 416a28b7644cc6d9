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
	w := r.Worker("a")
	g := r.Connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one", Name: "One"}, {ID: "two", Name: "Two"}}})
	require.NoError(t, w.HandleDue(t.Context(), due(g)))

	got := r.Get(w, g.ID)
	require.Equal(t, int64(2), got.Version)
	require.Equal(t, int64(1), got.Applied)
	require.Nil(t, got.Lease)
	require.Nil(t, got.Outbox, "everything was sent")
	require.Equal(t, w.Dispatcher.Stream(got.ID), got.Due.Stream)
	require.Equal(t, []string{"token.refreshed: "}, r.LifecycleEvents("user"))
	require.NotNil(t, r.schedule(g.ID))
	r.RequireSoundTokens(w, g.ID)
}

func TestDuplicateAndStaleMessagesCallNobody(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.Connect(w, meshsim.ConnectSpec{})
	old := due(g)
	require.NoError(t, w.HandleDue(t.Context(), old))
	scheduled := r.schedule(g.ID)
	require.NotNil(t, scheduled)

	for name, m := range map[string]events.RefreshDue{
		"duplicate":       old,
		"another version": {GrantID: g.ID, BrokerType: g.BrokerType, Version: 7, DueAt: r.Get(w, g.ID).Due.At},
		"another time":    {GrantID: g.ID, BrokerType: g.BrokerType, Version: 2, DueAt: r.Clock.Now().Add(time.Second)},
		"no such grant":   {GrantID: "nobody", BrokerType: "coinbase", Version: 1, DueAt: r.Clock.Now()},
	} {
		require.NoError(t, w.HandleDue(t.Context(), m), name)
	}
	require.Equal(t, 1, r.Calls())

	// A stale message may have replaced the current schedule, which is made again.
	require.NoError(t, w.Dispatcher.Postpone(t.Context(), old, r.Clock.Now().Add(hour)))
	require.NoError(t, w.HandleDue(t.Context(), old))
	require.Equal(t, scheduled.Data, r.schedule(g.ID).Data)
	require.Equal(t, 1, r.Calls())
	r.RequireSoundTokens(w, g.ID)
}

func TestTwoWorkersAtOnceMakeOneCall(t *testing.T) {
	r := newRig(t)
	a, b := r.Worker("a"), r.Worker("b")
	g := r.Connect(a, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
	r.Block("one")
	first := r.inBackground(a, due(g))
	r.Wait(r.Blocked)
	var leased *store.LeasedError
	require.ErrorAs(t, b.HandleDue(t.Context(), due(g)), &leased)
	require.Equal(t, r.Clock.Now().Add(time.Minute), leased.Until.UTC())
	_, err := b.RefreshNow(t.Context(), r.Get(b, g.ID))
	require.ErrorAs(t, err, &leased)
	r.Unblock <- struct{}{}
	require.NoError(t, r.Result(first))
	require.NoError(t, b.HandleDue(t.Context(), due(g)), "out of date by now")
	require.Equal(t, 1, r.Calls())
	r.RequireSoundTokens(a, g.ID)
}

func TestNowRefreshesBeforeTheTime(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.Due.At = r.Clock.Now().Add(hour) })
	got, err := w.RefreshNow(t.Context(), g)
	require.NoError(t, err)
	require.Equal(t, int64(2), got.Version)
	_, err = w.RefreshNow(t.Context(), g)
	require.ErrorIs(t, err, store.ErrStale)
	require.Equal(t, 1, r.Calls())
}

func TestTheAnswerIsKeptWhenTheCallerLeaves(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.Connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
	r.Block("one")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.HandleDue(ctx, due(g)) }()
	r.Wait(r.Blocked)
	cancel()
	r.Unblock <- struct{}{}
	require.NoError(t, r.Result(done))
	require.Equal(t, int64(2), r.Get(w, g.ID).Version)
	require.Equal(t, []string{"token.refreshed: "}, r.LifecycleEvents("user"))
	r.RequireSoundTokens(w, g.ID)
}

func TestWhatARequestBrings(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	onRequest := meshsim.Institution{Rotation: meshsim.RotateOnRequest, AccessLifetime: hour, RefreshLifetime: 90 * day}

	t.Run("no wish for a new refresh token before its time", func(t *testing.T) {
		g := r.Connect(w, meshsim.ConnectSpec{Institution: &onRequest})
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		chain, _ := r.Sim.Ledger().Chain(g.Accounts[0].ID)
		require.Len(t, chain.Refresh, 1)
	})
	t.Run("a wish for a new one when it is time", func(t *testing.T) {
		g := r.Connect(w, meshsim.ConnectSpec{Institution: &onRequest}, func(g *store.Grant) { g.Refresh = lasting(r.Clock.Now().Add(-89*day), 90*day) })
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		chain, _ := r.Sim.Ledger().Chain(g.Accounts[0].ID)
		require.Len(t, chain.Refresh, 2)
		require.Equal(t, r.Clock.Now(), r.Get(w, g.ID).Refresh.Since.UTC())
		r.RequireSoundTokens(w, g.ID)
	})
	t.Run("the access token where the broker is known to need it", func(t *testing.T) {
		g := r.Connect(w, meshsim.ConnectSpec{BrokerType: "weBull"})
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		require.Equal(t, int64(2), r.Get(w, g.ID).Version)
	})
	t.Run("the access token where the broker turns out to need it", func(t *testing.T) {
		g := r.Connect(w, meshsim.ConnectSpec{BrokerType: "picky", Institution: &meshsim.Institution{NeedsAccessToken: true, AccessLifetime: hour}})
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		g = r.Get(w, g.ID)
		require.True(t, g.SendAccess)
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		require.Equal(t, int64(2), r.Get(w, g.ID).Version)
		r.RequireSoundTokens(w, g.ID)
	})
}

func TestFailuresAreStored(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
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
		g := r.Connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: name}}}, func(g *store.Grant) { g.UserID = name })
		require.NoError(t, r.Sim.Script(name, c.action))
		require.NoError(t, w.HandleDue(t.Context(), due(g)), name)
		got := r.Get(w, g.ID)
		require.Equal(t, c.state, got.State, name)
		version := int64(1)
		if name == "mfa" { // the interim access token is kept
			version = 2
		}
		require.Equal(t, version, got.Version, name)
		require.Nil(t, got.Lease, name)
		require.Equal(t, c.told, r.LifecycleEvents(name))
		require.Equal(t, name == "reset", got.Unknown != nil)
	}
}

func TestRefusedCredentialsPutEverythingOff(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g, other := r.Connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}}), r.Connect(w, meshsim.ConnectSpec{BrokerType: "other"})
	r.RefuseCredentials()
	require.NoError(t, w.HandleDue(t.Context(), due(g)))
	var later *refresher.LaterError
	require.ErrorAs(t, w.HandleDue(t.Context(), due(other)), &later)
	require.Equal(t, refresher.LaterError{After: 10 * time.Second, Why: "credentials", LatestAttempt: *w.Settler.Policy.LatestAttempt(other)}, *later)
	require.Equal(t, 1, r.Calls())
	require.Equal(t, store.Active, r.Get(w, g.ID).State)
}

// TestMessagesThatCallNobodyDoNotHideFailures: they must not look like a
// broker that answers.
func TestMessagesThatCallNobodyDoNotHideFailures(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a", func(d *refresher.Options) { d.Limits.BreakerFailures = 2 })
	for range 2 {
		g := r.Connect(w, meshsim.ConnectSpec{})
		require.NoError(t, r.Sim.Script(g.Accounts[0].ID, meshsim.HTTPStatus(500)))
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		stale := due(g)
		err := w.HandleDue(t.Context(), stale)
		var later *refresher.LaterError
		if err != nil {
			require.ErrorAs(t, err, &later)
		}
	}
	var later *refresher.LaterError
	require.ErrorAs(t, w.HandleDue(t.Context(), due(r.Connect(w, meshsim.ConnectSpec{}))), &later)
	require.Equal(t, "breaker", later.Why)
}

func TestWithoutKMSNothingIsSpent(t *testing.T) {
	r := newRig(t)
	_, err := r.Worker("maker").Fingerprints.Key(t.Context()) // under a data key of its own
	require.NoError(t, err)
	writer, w := r.Worker("writer"), r.Worker("a")
	g := r.Connect(writer, meshsim.ConnectSpec{})

	r.KMS.Faults().Always(kmssim.ServiceUnavailable)
	require.ErrorIs(t, w.HandleDue(t.Context(), due(g)), envelope.ErrKMS)
	require.Equal(t, g, r.Get(w, g.ID), "not even a lease was taken")

	r.KMS.Faults().Clear()
	r.Clock.Advance(time.Minute) // the pause after a failure
	_, err = w.Fingerprints.Sealer(t.Context(), "user")
	require.NoError(t, err)
	r.KMS.Faults().Always(kmssim.ServiceUnavailable)
	require.NoError(t, w.HandleDue(t.Context(), due(g)), "the key to seal is there, the key to open is not")
	require.Zero(t, r.Calls())
	got := r.Get(w, g.ID)
	require.Equal(t, store.Active, got.State)
	require.Equal(t, 1, got.Attempts)
	require.Nil(t, got.Lease)

	r.KMS.Faults().Clear()
	r.Clock.Advance(time.Minute)
	require.NoError(t, w.HandleDue(t.Context(), due(got)))
	r.RequireSoundTokens(w, g.ID)
}

func TestATokenSetThatDoesNotOpen(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	t.Run("was changed: the grant is dead", func(t *testing.T) {
		g := r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.UserID = "changed" })
		g.Sealed.Data[len(g.Sealed.Data)-1] ^= 1
		r.alter(g.ID, bson.D{{Key: "sealed.data", Value: g.Sealed.Data}})
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		got := r.Get(w, g.ID)
		require.Equal(t, store.Expired, got.State)
		require.Equal(t, events.ReasonUnreadable, got.Reason)
		require.Equal(t, []string{"token.expired: unreadable"}, r.LifecycleEvents("changed"))
	})
	t.Run("its key is missing: a restored key saves it", func(t *testing.T) {
		g := r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.UserID = "keyless" })
		r.alter(g.ID, bson.D{{Key: "sealed.key", Value: "missing"}})
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		got := r.Get(w, g.ID)
		require.Equal(t, store.Active, got.State)
		require.Empty(t, r.LifecycleEvents("keyless"))
		require.True(t, got.Due.At.After(r.Clock.Now()))

		r.alter(g.ID, bson.D{{Key: "sealed.key", Value: g.Sealed.KeyID}})
		require.NoError(t, w.HandleDue(t.Context(), due(got)))
		r.RequireSoundTokens(w, g.ID)
	})
	require.Equal(t, 1, r.Calls())
}

func TestErasedWhileRefreshing(t *testing.T) {
	for name, erase := range map[string]func(t *testing.T, w *worker, g *store.Grant){
		"gone": func(t *testing.T, w *worker, g *store.Grant) { require.NoError(t, w.Store.Delete(t.Context(), g)) },
		"revoked": func(t *testing.T, w *worker, g *store.Grant) {
			g.State, g.Sealed, g.Lease = store.Revoked, envelope.Blob{}, nil
			require.NoError(t, w.Store.Save(t.Context(), g))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			w := r.Worker("a")
			g := r.Connect(w, meshsim.ConnectSpec{Accounts: []meshsim.Account{{ID: "one"}}})
			r.Block("one")
			done := r.inBackground(w, due(g))
			r.Wait(r.Blocked)
			erase(t, w, r.Get(w, g.ID))
			r.Unblock <- struct{}{}
			require.NoError(t, r.Result(done))
			require.Empty(t, r.Messages(r.Subjects.RecoveryStream(), ">"))
			require.Empty(t, r.LifecycleEvents("user"))
			require.Nil(t, r.schedule(g.ID))
			if left, err := w.Store.Get(t.Context(), g.ID); err == nil {
				require.Equal(t, store.Revoked, left.State)
				require.Empty(t, left.Sealed.Data)
			} else {
				require.ErrorIs(t, err, store.ErrNotFound)
			}
		})
	}
}
