package refresher_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// cutInToken is an answer that ends within its refresh token.
const cutInToken = `{"status":"ok","content":{"status":"succeeded","brokerAccountTokens":[{"refreshToken":"cut-off-tok`

// leftovers returns the opened bodies of the dead letters of a grant.
func (r *rig) leftovers(w *worker, g *store.Grant) (bodies []string) {
	r.t.Helper()
	letters := r.letters(w)
	for letter, err := range letters.All(r.t.Context()) {
		require.NoError(r.t, err)
		if letter.Tag == g.ID {
			body, err := letters.Open(r.t.Context(), letter.DeadLetter)
			require.NoError(r.t, err)
			bodies = append(bodies, string(body))
		}
	}
	return bodies
}

// TestWhatCanNotBeReadBecomesADeadLetter, by way of the database or of the recovery
// stream, and where neither NATS took it at first.
func TestWhatCanNotBeReadBecomesADeadLetter(t *testing.T) {
	r := newRig(t)
	server := newAnswering(t)
	r.meshURL = server.url
	refuse := false
	w := r.worker("a", func(d *refresher.Deps) {
		park := d.ParkAnswer
		d.ParkAnswer = func(ctx context.Context, g *store.Grant, id string, body []byte) error {
			if refuse {
				return errors.New("NATS is away")
			}
			return park(ctx, g, id, body)
		}
	})
	connect := func(broker string) *store.Grant {
		server.set(written{status: 200, body: cutInToken, declared: len(cutInToken) + 9})
		return r.connect(w, meshsim.ConnectSpec{BrokerType: broker}, func(g *store.Grant) { g.UserID = broker })
	}

	t.Run("at once", func(t *testing.T) {
		g := connect("one")
		require.NoError(t, w.Due(t.Context(), due(g)))
		require.Equal(t, []string{cutInToken}, r.leftovers(w, g))
		g = r.get(w, g.ID)
		require.False(t, g.Left)
		require.Equal(t, 1, g.Attempts)
		require.NotNil(t, g.Unknown, "the refresh token may have been replaced")
		r.clock.advance(g.Due.At.Sub(r.clock.Now()))
		require.NoError(t, w.Due(t.Context(), due(g)))
		require.Len(t, r.leftovers(w, g), 2, "another may hold another token")
	})
	t.Run("the database away", func(t *testing.T) {
		g := connect("two")
		r.failWrites(true)
		require.Error(t, w.Due(t.Context(), due(g)))
		r.failWrites(false)
		entries := r.messages(r.subjects.RecoveryStream(), r.subjects.Recovery(g.ID))
		require.Len(t, entries, 1)
		require.NoError(t, w.Recover(t.Context(), entries[0].Data))
		require.Equal(t, []string{cutInToken}, r.leftovers(w, g))
	})
	t.Run("the dead letters away", func(t *testing.T) {
		g := connect("three")
		refuse = true
		require.NoError(t, w.Due(t.Context(), due(g)))
		refuse = false
		g = r.get(w, g.ID)
		require.True(t, g.Left)
		require.Equal(t, 1, g.Attempts, "the outcome is settled nevertheless")
		set, err := w.Tokens(t.Context(), g)
		require.NoError(t, err)
		require.Len(t, set.Left, 1)
		require.Empty(t, r.leftovers(w, g))
		server.set(written{status: 200, body: body("ok", tokensContent)})
		r.clock.advance(g.Due.At.Sub(r.clock.Now()))
		require.NoError(t, w.Due(t.Context(), due(g)))
		require.Equal(t, []string{cutInToken}, r.leftovers(w, g))
		require.False(t, r.get(w, g.ID).Left)
	})
	t.Run("an erasure takes it along", func(t *testing.T) {
		g := connect("four")
		require.NoError(t, w.Due(t.Context(), due(g)))
		require.Len(t, r.leftovers(w, g), 1)
		g = r.get(w, g.ID)
		next := g.Clone()
		next.State, next.Reason, next.Outbox = store.Revoked, events.ReasonDisconnected, &store.Outbox{Since: r.clock.Now()}
		require.NoError(t, w.store.Save(t.Context(), next))
		require.NoError(t, w.dispatcher.Deliver(t.Context(), next))
		require.Empty(t, r.leftovers(w, g))
	})
}

// TestErrorPagesDoNotFillTheDeadLetters: only what may hold tokens is kept.
func TestErrorPagesDoNotFillTheDeadLetters(t *testing.T) {
	for _, given := range []written{
		{status: 502, body: "<html><head><title>502 Bad Gateway</title></head><body>The access token or refresh token service is away</body></html>"},
		{status: 200, body: "<html>Log in to the network</html>"},
		{status: 200, body: `{"status":"ok","content":{"sta`},
		{status: 502, body: encodings["gzip"]("<html>502</html>")},
		{status: 400, body: `{"title":"One or more validation errors occurred.","errors":{"type":["The type field is required."]}}`},
		{status: 400, body: `{"status":"badRequest","message":"Unauthorized token","request":{"type":"coinbase","refreshToken":"canary-refresh","accessToken":"canary-access"}}`},
		{status: 500, body: ``},
		{status: 502, body: "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx/1.18.0 (Ubuntu)</center>\r\n</body>\r\n</html>"},
		{status: 503, body: `<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
			<html xmlns="http://www.w3.org/1999/xhtml"><head><meta http-equiv="Content-Type" content="text/html; charset=windows-1252"/>
			<meta name="viewport" content="width=device-width, initial-scale=1.0"><title>503 - Service is unavailable.</title></head>
			<body><h2>503 - The refresh_token service at https://api.mesh.example/v1/tokens/refresh is away.</h2> Ray 8a1b2c3d4e5f6789, 2026-11-28T15:55:35Z</body></html>`},
		{status: 500, body: `{"status":"serverFailure","message":"Something went wrong, id 4f1c9a52-57d1-4b0c-9a3e-0d2f6f6c1a11","displayMessage":"[none] {0}","errorHash":"5f3a9c0db1e24c7788aa90bbccdd1122","traceId":"00-84c1fd4063c38d9f3900d06e56542d48-85d1d4-00"}`},
		{status: 400, body: `{"status":"badRequest","errorType":"badRequest","message":"Unauthorized token, accessToken: expired","requestToken":"none","expiresAt":"2026-11-28T15:55:35.1234567Z"}`},
		{status: 400, body: "grant_type=refresh_token&refresh_token=canary-refresh%20&access_token=%22canary-access%22"},
	} {
		f := refused(t, meshAnswering(t, given.status, given.body))
		require.Empty(t, f.Answer.Rest, given.body)
	}
	for _, given := range []written{
		{status: 503, body: "\x00\x01\xff\xfe\x80\x81\x82\x83 binary"},
		{status: 200, body: "eyJlbmMiOiJBMjU2R0NNIiwiYWxnIjoiUlNBLU9BRVAifQ.QR1Owv2ug2WyPBnbQrRARTeEk9kDO2w8"},
		{status: 200, body: body("ok", `"QR1Owv2ug2WyPBnbQrRARTeEk9kDO2w8"`)},
		{status: 200, body: body("ok", `{"status":"succeeded","credentials":{"refresh":"QR1Owv2ug2WyPBnbQrRARTeEk9kDO2w8"}}`)},
		{status: 502, body: "<p>Reference QR1Owv2ug2WyPBnbQrRARTeEk9kDO2w8</p>"},
		{status: 200, body: "QR1Owv2ug2WyPBnbQrRARTeEk9kDO2w8"},
	} {
		f := refused(t, meshAnswering(t, given.status, given.body))
		require.False(t, f.Answer.Rest.Empty(), given.body)
		require.True(t, f.Answer.Doubtful, given.body)
	}
}

// TestDoubtfulAnswersAreBounded, and nothing else: failures of other kinds don't count,
// what surely holds a token is always kept, and a good answer begins anew.
func TestDoubtfulAnswersAreBounded(t *testing.T) {
	r := newRig(t)
	server := newAnswering(t)
	r.meshURL = server.url
	w := r.worker("a", func(d *refresher.Deps) { d.Limits.BreakerFailures = 1000 })
	g := r.connect(w, meshsim.ConnectSpec{})
	try := func(given written) int {
		server.set(given)
		before := len(r.leftovers(w, g))
		g = r.get(w, g.ID)
		r.clock.advance(max(g.Due.At.Sub(r.clock.Now()), time.Minute))
		require.NoError(t, w.Due(t.Context(), due(g)))
		g = r.get(w, g.ID)
		return len(r.leftovers(w, g)) - before
	}
	plain, page := written{status: 503}, written{status: 502, body: "<p>Reference QR1Owv2ug2WyPBnbQrRARTeEk9kDO2w8</p>"}
	sure := written{status: 502, body: "refresh_token=QR1Owv2ug2WyPBnbQrRARTeEk9kDO2w8"}
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
	require.Zero(t, try(written{status: 200, body: body("ok", `{"status":"succeeded","accessToken":"new-access","expiresInSeconds":3600}`)}))
	require.Equal(t, 1, try(page), "anew")
}

// TestARefreshTokenThatIsNobodysBecomesOneDeadLetter, not one for each answer that
// brings it.
func TestARefreshTokenThatIsNobodysBecomesOneDeadLetter(t *testing.T) {
	r := newRig(t)
	server := newAnswering(t)
	r.meshURL = server.url
	w := r.worker("a")
	g := r.connect(w, meshsim.ConnectSpec{})
	for n := range 3 {
		server.set(written{status: 200, body: body("ok", `{"status":"succeeded","expiresInSeconds":60,"accessToken":"access-`+string(rune('a'+n))+`","linked":{"refreshToken":"another"}}`)})
		require.NoError(t, w.Due(t.Context(), due(g)))
		g = r.get(w, g.ID)
		set, err := w.Tokens(t.Context(), g)
		require.NoError(t, err)
		require.Contains(t, tokensOf(set), text("another"))
		require.Equal(t, []string{`{"refreshTokens":["another"]}`}, r.leftovers(w, g))
		r.clock.advance(g.Due.At.Sub(r.clock.Now()))
	}
}

// TestWhatWaitsToBecomeADeadLetterOutlivesTheTokenSet in which it lies: a new login, a
// grant that is made one with another, and the end of a grant's record.
func TestWhatWaitsToBecomeADeadLetterOutlivesTheTokenSet(t *testing.T) {
	r := newRig(t)
	w := r.worker("a")
	c := r.connector(w)
	waits := func(g *store.Grant, what string) {
		set, err := w.Tokens(t.Context(), g)
		require.NoError(t, err)
		with, err := w.prints.Sealer(t.Context(), g.UserID)
		require.NoError(t, err)
		g.Left, set.Left = true, []secret.Text{text(what)}
		with.SealTo(g, set, r.clock.Now(), false)
		require.NoError(t, w.store.Save(t.Context(), g))
	}
	connect := func(in events.Connected) *store.Grant {
		r.clock.advance(time.Second)
		require.NoError(t, c.Connect(t.Context(), in, r.clock.Now()))
		all := r.live(w, in.UserID)
		require.Len(t, all, 1)
		return all[0]
	}

	g := connect(wrapped("again", r.login("one"), 0))
	waits(g, "before the new login")
	require.True(t, connect(wrapped("again", r.login("one"), 0)).Left)
	g = r.refresh(w, r.get(w, g.ID))
	require.False(t, g.Left)
	require.Equal(t, []string{"before the new login"}, r.leftovers(w, g))

	login := r.login("two")
	g = connect(delayed("united", login.Accounts[0].RefreshToken))
	g.State, g.Due, g.Outbox = store.Expired, nil, nil
	waits(g, "of the one")
	g = connect(wrapped("united", login, 0))
	require.True(t, g.Left)
	g = r.refresh(w, g)
	require.Equal(t, []string{"of the one"}, r.leftovers(w, g))

	g = connect(wrapped("over", r.login("three"), 0))
	at := r.clock.Now().Add(-time.Hour)
	g.State, g.Due, g.PurgeAt, g.Outbox = store.Expired, nil, &at, nil
	waits(g, "of the last refresh")
	require.NoError(t, w.reconciler.Pass(t.Context()))
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
			with, err := w.prints.Sealer(t.Context(), g.UserID)
			require.NoError(t, err)
			set.Accounts[0].RefreshToken = text("its own")
			with.SealTo(g, set, r.clock.Now(), false)
			require.NoError(t, w.store.Save(t.Context(), g))
			require.NoError(t, c.Resolve(t.Context(), g.UserID))
		},
		"disconnected": func(g *store.Grant, _ *meshsim.Connection) {
			require.NoError(t, c.Disconnect(t.Context(), store.Scope{User: g.UserID}, r.clock.Now()))
		},
	} {
		login := r.login("of " + what)
		g := connect(wrapped(what, login, 0))
		waits(g, what)
		ends(g, login)
		require.Contains(t, r.told(what), "token.revoked: "+what)
		want := []string{what}
		if what == "disconnected" {
			want = nil
		}
		require.Equal(t, want, r.leftovers(w, g), what)
	}

	// One that a connect replaces under another id, since an earlier release made its own.
	login = r.login("of an earlier release")
	g = connect(delayed("earlier", login.Accounts[0].RefreshToken))
	require.NoError(t, w.store.Delete(t.Context(), g))
	g.BrokerType = "Coinbase"
	g.ID = store.FormerDelayedGrantID(g.UserID, g.BrokerType, login.Accounts[0].RefreshToken.Reveal())
	with, err := w.prints.Sealer(t.Context(), g.UserID)
	require.NoError(t, err)
	g.Left = true
	with.SealTo(g, store.TokenSet{RefreshToken: login.Accounts[0].RefreshToken, Left: []secret.Text{text("earlier")}}, r.clock.Now(), true)
	g.State, g.Due = store.Expired, nil
	require.NoError(t, w.store.Insert(t.Context(), g))
	connect(delayed("earlier", login.Accounts[0].RefreshToken))
	require.Equal(t, []string{"earlier"}, r.leftovers(w, g))
}
