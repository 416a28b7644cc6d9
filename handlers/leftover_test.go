package handlers_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim/meshsimtest"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// cutInToken is an answer that ends within its refresh token.
const cutInToken = `{"status":"ok","content":{"status":"succeeded","brokerAccountTokens":[{"refreshToken":"cut-off-tok`

// TestWhatCanNotBeReadBecomesADeadLetter, by way of the database or of the recovery
// stream, and where neither NATS took it at first.
func TestWhatCanNotBeReadBecomesADeadLetter(t *testing.T) {
	r := newRig(t)
	server := meshsimtest.NewServer(t)
	r.MeshURL = server.URL
	refuse := false
	w := r.Worker("a", func(d *refresher.Options) {
		park := d.ParkAnswer
		d.ParkAnswer = func(ctx context.Context, g *store.Grant, id string, body []byte) error {
			if refuse {
				return errors.New("NATS is away")
			}
			return park(ctx, g, id, body)
		}
	})
	connect := func(broker string) *store.Grant {
		server.Set(meshsimtest.Response{Status: 200, Body: cutInToken, Declared: len(cutInToken) + 9})
		return r.Connect(w, meshsim.ConnectSpec{BrokerType: broker}, func(g *store.Grant) { g.UserID = broker })
	}

	t.Run("at once", func(t *testing.T) {
		g := connect("one")
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		require.Equal(t, []string{cutInToken}, r.leftovers(w, g))
		g = r.Get(w, g.ID)
		require.False(t, g.HasLeftovers)
		require.Equal(t, 1, g.Attempts)
		require.NotNil(t, g.Unknown, "the refresh token may have been replaced")
		r.Clock.Advance(g.Due.At.Sub(r.Clock.Now()))
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		require.Len(t, r.leftovers(w, g), 2, "another may hold another token")
	})
	t.Run("byte by byte", func(t *testing.T) {
		g, bodies := connect("bytes"), []string{"\x00\x01\xff\xfe\x80 binary", `<p title="x">Gr\u00fc\u00dfe</p>` + "\r\n"}
		for _, body := range bodies {
			require.NoError(t, r.letters(w.Envelope).ParkAnswer(t.Context(), g, uuid.NewString(), []byte(body)))
		}
		require.Equal(t, bodies, r.leftovers(w, g))
	})
	t.Run("the database away", func(t *testing.T) {
		g := connect("two")
		r.FailWrites(true)
		require.Error(t, w.HandleDue(t.Context(), due(g)))
		r.FailWrites(false)
		entries := r.Messages(r.Subjects.RecoveryStream(), r.Subjects.Recovery(g.ID))
		require.Len(t, entries, 1)
		require.NoError(t, w.Recover(t.Context(), entries[0].Data))
		require.Equal(t, []string{cutInToken}, r.leftovers(w, g))
	})
	t.Run("the dead letters away", func(t *testing.T) {
		g := connect("three")
		refuse = true
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		refuse = false
		g = r.Get(w, g.ID)
		require.True(t, g.HasLeftovers)
		require.Equal(t, 1, g.Attempts, "the outcome is settled nevertheless")
		set, err := w.Tokens(t.Context(), g)
		require.NoError(t, err)
		require.Len(t, set.Leftovers, 1)
		require.Empty(t, r.leftovers(w, g))
		server.Set(meshsimtest.Content(`{"status":"succeeded","brokerAccountTokens":[{"account":{"accountId":"one"},"accessToken":"new-access","refreshToken":"new-refresh"}]}`))
		r.Clock.Advance(g.Due.At.Sub(r.Clock.Now()))
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		require.Equal(t, []string{cutInToken}, r.leftovers(w, g))
		require.False(t, r.Get(w, g.ID).HasLeftovers)
	})
	t.Run("an erasure takes it along", func(t *testing.T) {
		g := connect("four")
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		require.Len(t, r.leftovers(w, g), 1)
		g = r.Get(w, g.ID)
		next := g.Clone()
		next.State, next.Reason, next.Outbox = store.Revoked, events.ReasonDisconnected, &store.Outbox{Since: r.Clock.Now()}
		require.NoError(t, w.Store.Save(t.Context(), next))
		require.NoError(t, w.Dispatcher.Deliver(t.Context(), next))
		require.Empty(t, r.leftovers(w, g))
	})
}

// TestDoubtfulAnswersAreBounded, and nothing else: failures of other kinds don't count,
// what surely holds a token is always kept, and a good answer begins anew.
func TestDoubtfulAnswersAreBounded(t *testing.T) {
	r := newRig(t)
	server := meshsimtest.NewServer(t)
	r.MeshURL = server.URL
	w := r.Worker("a", func(d *refresher.Options) { d.Limits.BreakerFailures = 1000 })
	g := r.Connect(w, meshsim.ConnectSpec{})
	try := func(given meshsimtest.Response) int {
		server.Set(given)
		before := len(r.leftovers(w, g))
		g = r.Get(w, g.ID)
		r.Clock.Advance(max(g.Due.At.Sub(r.Clock.Now()), time.Minute))
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		g = r.Get(w, g.ID)
		return len(r.leftovers(w, g)) - before
	}
	plain, page := meshsimtest.Response{Status: 503}, meshsimtest.Response{Status: 502, Body: "<p>Reference QR1Owv2ug2WyPBnbQrRARTeEk9kDO2w8</p>"}
	sure := meshsimtest.Response{Status: 502, Body: "refresh_token=QR1Owv2ug2WyPBnbQrRARTeEk9kDO2w8"}
	for range 5 {
		require.Zero(t, try(plain))
	}
	require.Equal(t, 1, try(page), "other failures count for nothing")
	require.Zero(t, try(plain))
	require.Equal(t, 1, try(page))
	require.Equal(t, 1, try(sure))
	require.Equal(t, 1, try(page))
	require.Zero(t, try(page))
	require.Zero(t, try(page))
	require.Equal(t, 1, try(sure))
	require.Zero(t, try(meshsimtest.Content(`{"status":"succeeded","accessToken":"new-access","expiresInSeconds":3600}`)))
	require.Equal(t, 1, try(page), "anew")
}

// TestARefreshTokenThatIsNobodysBecomesOneDeadLetter, not one for each answer that
// brings it.
func TestARefreshTokenThatIsNobodysBecomesOneDeadLetter(t *testing.T) {
	r := newRig(t)
	server := meshsimtest.NewServer(t)
	r.MeshURL = server.URL
	w := r.Worker("a")
	g := r.Connect(w, meshsim.ConnectSpec{})
	for n := range 3 {
		server.Set(meshsimtest.Content(`{"status":"succeeded","expiresInSeconds":60,"accessToken":"access-` + string(rune('a'+n)) + `","linked":{"refreshToken":"another"}}`))
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		g = r.Get(w, g.ID)
		set, err := w.Tokens(t.Context(), g)
		require.NoError(t, err)
		require.Contains(t, set.Spare, text("another"))
		require.Equal(t, []string{`{"refreshTokens":["another"]}`}, r.leftovers(w, g))
		r.Clock.Advance(g.Due.At.Sub(r.Clock.Now()))
	}
}

// TestWhatWaitsToBecomeADeadLetterOutlivesTheTokenSet in which it lies: a new login, a
// grant that is made one with another, and the end of a grant's record.
func TestWhatWaitsToBecomeADeadLetterOutlivesTheTokenSet(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	c := r.connector(w)
	waits := func(g *store.Grant, what string) {
		set, err := w.Tokens(t.Context(), g)
		require.NoError(t, err)
		with, err := w.Fingerprints.Sealer(t.Context(), g.UserID)
		require.NoError(t, err)
		g.HasLeftovers, set.Leftovers = true, []secret.Text{text(what)}
		with.SealTo(g, set, r.Clock.Now(), false)
		require.NoError(t, w.Store.Save(t.Context(), g))
	}
	connect := func(in events.Connected) *store.Grant {
		r.Clock.Advance(time.Second)
		require.NoError(t, c.Connect(t.Context(), in, r.Clock.Now()))
		all := r.live(w, in.UserID)
		require.Len(t, all, 1)
		return all[0]
	}

	g := connect(wrapped("again", r.login("one"), 0))
	waits(g, "before the new login")
	require.True(t, connect(wrapped("again", r.login("one"), 0)).HasLeftovers)
	g = r.refresh(w, r.Get(w, g.ID))
	require.False(t, g.HasLeftovers)
	require.Equal(t, []string{"before the new login"}, r.leftovers(w, g))

	login := r.login("two")
	g = connect(delayed("united", login.Accounts[0].RefreshToken))
	g.State, g.Due, g.Outbox = store.Expired, nil, nil
	waits(g, "of the one")
	g = connect(wrapped("united", login, 0))
	require.True(t, g.HasLeftovers)
	g = r.refresh(w, g)
	require.Equal(t, []string{"of the one"}, r.leftovers(w, g))

	g = connect(wrapped("over", r.login("three"), 0))
	at := r.Clock.Now().Add(-time.Hour)
	g.State, g.Due, g.PurgeAt, g.Outbox = store.Expired, nil, &at, nil
	waits(g, "of the last refresh")
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	require.Equal(t, []string{"of the last refresh"}, r.leftovers(w, g))

	// Whatever takes a grant away, but for its user.
	for what, ends := range map[string]func(g *store.Grant, login *meshsim.Connection){
		"replaced": func(g *store.Grant, _ *meshsim.Connection) {
			connect(wrapped(g.UserID, r.login(g.Accounts[0].ID, "another"), 0, 1))
		},
		"moved": func(_ *store.Grant, login *meshsim.Connection) { connect(wrapped("new", login, 0)) },
		"split": func(g *store.Grant, _ *meshsim.Connection) {
			set, err := w.Tokens(t.Context(), g)
			require.NoError(t, err)
			with, err := w.Fingerprints.Sealer(t.Context(), g.UserID)
			require.NoError(t, err)
			set.Accounts[0].RefreshToken = text("its own")
			with.SealTo(g, set, r.Clock.Now(), false)
			require.NoError(t, w.Store.Save(t.Context(), g))
			require.NoError(t, c.Resolve(t.Context(), g.UserID))
		},
		"disconnected": func(g *store.Grant, _ *meshsim.Connection) {
			require.NoError(t, c.Disconnect(t.Context(), store.Scope{User: g.UserID}, r.Clock.Now()))
		},
	} {
		login := r.login("of " + what)
		g := connect(wrapped(what, login, 0))
		waits(g, what)
		ends(g, login)
		require.Contains(t, r.LifecycleEvents(what), "token.revoked: "+what)
		want := []string{what}
		if what == "disconnected" {
			want = nil
		}
		require.Equal(t, want, r.leftovers(w, g), what)
	}

	// One that a connect replaces under another id, since an earlier release made its own.
	login = r.login("of an earlier release")
	g = connect(delayed("earlier", login.Accounts[0].RefreshToken))
	require.NoError(t, w.Store.Delete(t.Context(), g))
	g.BrokerType = "Coinbase"
	g.ID = store.FormerDelayedGrantID(g.UserID, g.BrokerType, login.Accounts[0].RefreshToken.Reveal())
	with, err := w.Fingerprints.Sealer(t.Context(), g.UserID)
	require.NoError(t, err)
	g.HasLeftovers = true
	with.SealTo(g, store.TokenSet{RefreshToken: login.Accounts[0].RefreshToken, Leftovers: []secret.Text{text("earlier")}}, r.Clock.Now(), true)
	g.State, g.Due = store.Expired, nil
	require.NoError(t, w.Store.Insert(t.Context(), g))
	connect(delayed("earlier", login.Accounts[0].RefreshToken))
	require.Equal(t, []string{"earlier"}, r.leftovers(w, g))
}
