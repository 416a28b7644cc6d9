package handlers_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim/meshsimtest"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/store"
)

// login has the simulator issue tokens of a login with some accounts.
func (r *rig) login(accounts ...string) *meshsim.Connection {
	r.T.Helper()
	spec := meshsim.ConnectSpec{BrokerType: "coinbase"}
	for _, id := range accounts {
		spec.Accounts = append(spec.Accounts, meshsim.Account{ID: id})
	}
	connected, err := r.Sim.Connect(spec)
	require.NoError(r.T, err)
	return &connected
}

func wrapped(user string, c *meshsim.Connection, accounts ...int) events.Connected {
	form := &events.AccessTokenPayload{BrokerType: "coinbase", BrokerName: "Coinbase", ExpiresInSeconds: 3600}
	for _, i := range accounts {
		a := c.Accounts[i]
		form.AccountTokens = append(form.AccountTokens, events.AccountToken{
			Account: events.PayloadAccount{AccountID: a.AccountID, AccountName: a.AccountID}, AccessToken: a.AccessToken, RefreshToken: a.RefreshToken,
		})
	}
	return events.Connected{UserID: user, Payload: &events.LinkPayload{AccessToken: form}}
}

func delayed(user string, token secret.Text) events.Connected {
	return events.Connected{UserID: user, Payload: &events.LinkPayload{DelayedAuth: &events.DelayedAuthPayload{BrokerType: "coinbase", BrokerName: "Coinbase", RefreshToken: token}}}
}

// live returns the grants of users that are not revoked.
func (r *rig) live(w *worker, users ...string) (all []*store.Grant) {
	r.T.Helper()
	r.WaitSent()
	for _, user := range users {
		grants, err := w.Store.ByUser(r.T.Context(), user)
		require.NoError(r.T, err)
		for _, g := range grants {
			if g.State != store.Revoked {
				all = append(all, g)
			}
		}
	}
	return all
}

func (r *rig) refresh(w *worker, g *store.Grant) *store.Grant {
	r.T.Helper()
	after, err := w.RefreshNow(context.Background(), g)
	require.NoError(r.T, err)
	return after
}

// One login that reaches the worker in several forms is one grant, whichever comes first
// and whether it was refreshed in between.
func TestOneLoginIsOneGrant(t *testing.T) {
	for name, connects := range map[string]func(c *meshsim.Connection) []events.Connected{
		"both forms in one payload": func(c *meshsim.Connection) []events.Connected {
			both := wrapped("u", c, 0, 1)
			both.Payload.DelayedAuth = delayed("u", c.Accounts[0].RefreshToken).Payload.DelayedAuth
			return []events.Connected{both}
		},
		"delayed, then with access tokens": func(c *meshsim.Connection) []events.Connected {
			return []events.Connected{delayed("u", c.Accounts[0].RefreshToken), wrapped("u", c, 0, 1)}
		},
		"with access tokens, then delayed": func(c *meshsim.Connection) []events.Connected {
			return []events.Connected{wrapped("u", c, 0, 1), delayed("u", c.Accounts[0].RefreshToken)}
		},
		"each account as an event": func(c *meshsim.Connection) []events.Connected {
			return []events.Connected{wrapped("u", c, 0), wrapped("u", c, 1)}
		},
	} {
		for _, refreshed := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", refreshed in between: ", refreshed), func(t *testing.T) {
				r := newRig(t)
				w := r.Worker("a")
				c := r.connector(w)
				for _, in := range connects(r.login("one", "two")) {
					require.NoError(t, c.Connect(t.Context(), in, r.Clock.Now()))
					all := r.live(w, "u")
					require.Len(t, all, 1)
					r.Clock.Advance(time.Second)
					if refreshed {
						r.refresh(w, all[0])
						r.Clock.Advance(time.Second)
					}
				}
				all := r.live(w, "u")
				require.Len(t, all, 1)
				require.ElementsMatch(t, []string{"one", "two"}, all[0].AccountIDs())
				r.refresh(w, all[0])
				r.RequireSoundTokens(w, all[0].ID)
				require.Empty(t, r.Sim.Ledger().ReplacedPresented())
			})
		}
	}
}

// A connect that is published again while the first is being refreshed drops neither the
// lease nor the answer.
func TestAConnectPublishedAgainDuringARefresh(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	c := r.connector(w)
	in := wrapped("u", r.login("one"), 0)
	require.NoError(t, c.Connect(t.Context(), in, r.Clock.Now()))
	g := r.live(w, "u")[0]
	done := r.refreshing(w, g, "one")
	r.Clock.Advance(time.Second)
	require.NoError(t, c.Connect(t.Context(), in, r.Clock.Now()))
	require.NotNil(t, r.Get(w, g.ID).Lease)
	r.Unblock <- struct{}{}
	require.NoError(t, r.Result(done))
	r.RequireSoundTokens(w, g.ID)
	r.Clock.Advance(time.Second)
	require.NoError(t, c.Connect(t.Context(), in, r.Clock.Now()))
	r.refresh(w, r.Get(w, g.ID))
	r.RequireSoundTokens(w, g.ID)
	require.Empty(t, r.Sim.Ledger().ReplacedPresented())
}

// Another user's connect has the refresh token, also what a refresh under way makes of it.
func TestARefreshTokenGoesToTheUserWhoConnectedLast(t *testing.T) {
	for _, when := range []string{"never refreshed", "refreshed before", "during a refresh"} {
		t.Run(when, func(t *testing.T) {
			underWay := when == "during a refresh"
			r := newRig(t)
			w := r.Worker("a")
			c := r.connector(w)
			login := r.login("one")
			require.NoError(t, c.Connect(t.Context(), wrapped("old", login, 0), r.Clock.Now()))
			g := r.live(w, "old")[0]
			if when == "refreshed before" {
				r.Clock.Advance(time.Second)
				g = r.refresh(w, g)
			}
			var done <-chan error
			if underWay {
				done = r.refreshing(w, g, "one")
			}
			r.Clock.Advance(time.Second)
			at := r.Clock.Now()
			err := c.Connect(t.Context(), wrapped("new", login, 0), at)
			if underWay {
				var leased *store.LeasedError
				require.ErrorAs(t, err, &leased)
				r.Clock.Advance(time.Second)
				r.Unblock <- struct{}{}
				require.NoError(t, r.Result(done))
				err = c.Connect(t.Context(), wrapped("new", login, 0), at)
			}
			require.NoError(t, err)
			require.Empty(t, r.live(w, "old"))
			all := r.live(w, "new")
			require.Len(t, all, 1)
			require.Nil(t, all[0].Lease)
			require.Contains(t, r.LifecycleEvents("old"), "token.revoked: moved")
			r.RequireSoundTokens(w, all[0].ID)
			r.refresh(w, all[0])
			r.RequireSoundTokens(w, all[0].ID)

			// Published again under the old name, the token is a spent one.
			r.Clock.Advance(time.Second)
			require.NoError(t, c.Connect(t.Context(), wrapped("old", login, 0), r.Clock.Now()))
			require.Empty(t, r.live(w, "old"))
			require.Len(t, r.live(w, "new"), 1)

			// Under a third name it goes there, and under those before it changes nothing.
			r.Clock.Advance(time.Second)
			require.NoError(t, c.Connect(t.Context(), wrapped("third", login, 0), r.Clock.Now()))
			all = r.live(w, "old", "new", "third")
			require.Len(t, all, 1)
			require.Equal(t, "third", all[0].UserID)
			r.refresh(w, all[0])
			for _, user := range []string{"old", "new"} {
				r.Clock.Advance(time.Second)
				require.NoError(t, c.Connect(t.Context(), wrapped(user, login, 0), r.Clock.Now()))
			}
			all = r.live(w, "old", "new", "third")
			require.Len(t, all, 1)
			require.Equal(t, "third", all[0].UserID)
			r.RequireSoundTokens(w, all[0].ID)
			require.Empty(t, r.Sim.Ledger().ReplacedPresented())
		})
	}
}

// Whoever loses a refresh token to another grant hears of it: subscribers of a grant of
// which they may have heard, publishers of a connect that comes to nothing.
func TestWhoeverLosesARefreshTokenHears(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	rejections, err := handlers.NewRejections(handlers.RejectionsOptions{Conn: r.JS.Conn(), Subjects: r.Subjects, Now: r.Clock.Now, NewID: uuid.NewString, Log: r.Log})
	require.NoError(t, err)
	c := r.connector(w, func(o *handlers.ConnectorOptions) { o.Rejections = rejections })
	heard, err := r.JS.Conn().SubscribeSync(r.Subjects.RejectedAll())
	require.NoError(t, err)
	connected := handlers.Connected(c, nil, config.Default().Connect)
	rejected := func(user, payload string, at time.Time) (reason events.RejectedReason) {
		body := fmt.Sprintf(`{"userId":%q,"connectedAt":%q,"payload":%s}`, user, at.Format(time.RFC3339Nano), payload)
		require.NoError(t, connected(t.Context(), message.NewMessage("", []byte(body))))
		require.NoError(t, r.JS.Conn().Flush())
		if n, _, err := heard.Pending(); err != nil || n == 0 {
			return ""
		}
		msg, err := heard.NextMsg(patience)
		require.NoError(t, err)
		e, err := events.DecodeRejected(msg.Data)
		require.NoError(t, err)
		require.Equal(t, user, e.Data.UserID)
		return e.Data.Reason
	}
	whole := func(login *meshsim.Connection) string {
		a := login.Accounts[0]
		return fmt.Sprintf(`{"accessToken":{"brokerType":"coinbase","brokerName":"C","expiresInSeconds":3600,"accountTokens":[{"account":{"accountId":%q},"accessToken":%q,"refreshToken":%q}]}}`,
			a.AccountID, a.AccessToken.Reveal(), a.RefreshToken.Reveal())
	}
	delayed := func(login *meshsim.Connection) string {
		return fmt.Sprintf(`{"delayedAuth":{"brokerType":"coinbase","refreshToken":%q}}`, login.Accounts[0].RefreshToken.Reveal())
	}
	// uncleared has a grant look as when its events are published and its outbox is not
	// cleared yet.
	uncleared := func(user string) {
		g := r.live(w, user)[0]
		require.NoError(t, w.Settler.Announce(g, events.TokenStored, ""))
		require.NoError(t, w.Store.Save(t.Context(), g))
	}
	now := r.Clock.Now()

	login := r.login("one")
	require.Empty(t, rejected("new", whole(login), now))
	require.Equal(t, events.RejectedOlder, rejected("old", whole(login), now.Add(-time.Second)), "another has it since")
	require.Empty(t, r.LifecycleEvents("old"), "there was never such a grant")
	require.Empty(t, rejected("newest", whole(login), now.Add(time.Second)))
	require.Contains(t, r.LifecycleEvents("new"), "token.revoked: moved")
	r.Clock.Advance(2 * time.Second)
	r.refresh(w, r.live(w, "newest")[0])
	require.Equal(t, events.RejectedOlder, rejected("new", whole(login), r.Clock.Now()), "published again")
	require.Len(t, r.live(w, "new", "newest"), 1)

	login = r.login("two")
	require.Empty(t, rejected("same", whole(login), r.Clock.Now()))
	r.Clock.Advance(time.Second)
	r.refresh(w, r.live(w, "same")[0])
	r.Clock.Advance(time.Second)
	require.Equal(t, events.RejectedOlder, rejected("same", delayed(login), r.Clock.Now()), "it brings nothing new")
	require.Equal(t, []string{"token.stored: ", "token.refreshed: "}, r.LifecycleEvents("same"))

	login = r.login("three")
	require.Empty(t, rejected("uncleared", whole(login), r.Clock.Now()))
	uncleared("uncleared")
	require.Empty(t, rejected("another", whole(login), r.Clock.Now().Add(time.Second)))
	require.Contains(t, r.LifecycleEvents("uncleared"), "token.revoked: moved")

	login = r.login("four")
	require.Empty(t, rejected("united", delayed(login), r.Clock.Now()))
	uncleared("united")
	require.Empty(t, rejected("united", whole(login), r.Clock.Now().Add(time.Second)))
	require.Len(t, r.live(w, "united"), 1)
	require.Equal(t, []string{"four"}, r.live(w, "united")[0].AccountIDs())
	require.Contains(t, r.LifecycleEvents("united"), "token.revoked: replaced")
}

// A connect of a login that comes after an account of that login was disconnected brings
// a refresh token that may be spent: it is presented by nobody once that is known, and
// meanwhile nobody presents it beside the refresh that is under way.
func TestAConnectOfALoginThatWasDisconnectedInPart(t *testing.T) {
	for name, c := range map[string]struct {
		before, after func(r *rig, w *worker, g *store.Grant) // the disconnect, the connect
		lost, leased  bool
	}{
		"never refreshed":   {},
		"refreshed before":  {before: func(r *rig, w *worker, g *store.Grant) { r.refresh(w, g) }, lost: true},
		"refreshed already": {before: func(r *rig, w *worker, g *store.Grant) { r.refresh(w, r.refresh(w, r.refresh(w, g))) }, lost: true},
		"during the refresh, that ends before": {before: func(r *rig, w *worker, g *store.Grant) {
			r.ended = r.refreshing(w, g, "one")
		}, after: func(r *rig, _ *worker, _ *store.Grant) {
			r.Unblock <- struct{}{}
			require.NoError(r.T, r.Result(r.ended))
		}, lost: true},
		"during the refresh, that goes on": {before: func(r *rig, w *worker, g *store.Grant) {
			r.ended = r.refreshing(w, g, "one")
		}, leased: true},
		"the answer in the recovery stream": {before: func(r *rig, w *worker, g *store.Grant) {
			r.FailWrites(true)
			_, err := w.RefreshNow(context.Background(), g)
			require.NoError(r.T, err)
			r.FailWrites(false)
		}, lost: true},
		"the answer in the recovery stream later": {before: func(r *rig, w *worker, g *store.Grant) {
			r.ended = r.refreshing(w, g, "one")
		}, after: func(r *rig, w *worker, g *store.Grant) {
			r.FailWrites(true)
			r.Unblock <- struct{}{}
			require.NoError(r.T, r.Result(r.ended))
			r.FailWrites(false)
			entries := r.Messages(r.Subjects.RecoveryStream(), r.Subjects.Recovery(g.ID))
			require.Len(r.T, entries, 1)
			require.NoError(r.T, w.Recover(r.T.Context(), entries[0].Data))
		}, lost: true},
	} {
		for _, form := range []string{"the other account", "without accounts"} {
			t.Run(name+", "+form, func(t *testing.T) {
				r := newRig(t)
				w, connector := r.resolving("a")
				login, at := r.login("one", "two"), r.Clock.Now()
				require.NoError(t, connector.Connect(t.Context(), wrapped("u", login, 0), at))
				g := r.live(w, "u")[0]
				r.Clock.Advance(time.Second)
				if c.before != nil {
					c.before(r, w, g)
				}
				r.Clock.Advance(time.Second)
				require.NoError(t, connector.Disconnect(t.Context(), store.Scope{User: "u", Broker: "coinbase", Account: "one"}, r.Clock.Now()))
				r.WaitSent()
				if c.after != nil {
					c.after(r, w, g)
				}
				r.Clock.Advance(time.Second)
				in := wrapped("u", login, 1)
				if form == "without accounts" {
					in = delayed("u", login.Accounts[1].RefreshToken)
				}
				require.NoError(t, connector.Connect(t.Context(), in, at))
				all := r.live(w, "u")
				if c.lost {
					require.Empty(t, all)
					require.NoError(t, connector.Connect(t.Context(), wrapped("v", login, 1), r.Clock.Now()), "under another name")
					require.Empty(t, r.live(w, "v"))
				} else {
					require.Len(t, all, 1)
					if c.leased {
						var leased *store.LeasedError
						_, err := w.RefreshNow(t.Context(), all[0])
						require.ErrorAs(t, err, &leased)
						r.Unblock <- struct{}{}
						require.NoError(t, r.Result(r.ended))
					}
					r.refresh(w, r.live(w, "u")[0])
					r.Clock.Advance(time.Second)
					r.RequireSoundTokens(w, all[0].ID)
				}
				require.Empty(t, r.Sim.Ledger().ReplacedPresented())
			})
		}
	}
}

// What was spent stays known as spent when a grant moves to another user, and when two
// become one.
func TestTokensStaySpentWhenTheirGrantGoes(t *testing.T) {
	for _, to := range []string{"v", "u"} {
		t.Run(to, func(t *testing.T) {
			r := newRig(t)
			w, connector := r.resolving("a")
			first := r.login("one")
			require.NoError(t, connector.Connect(t.Context(), wrapped("u", first, 0), r.Clock.Now()))
			r.Clock.Advance(time.Second)
			r.refresh(w, r.live(w, "u")[0])
			r.Clock.Advance(time.Second)
			second := r.login("one")
			require.NoError(t, connector.Connect(t.Context(), wrapped("u", second, 0), r.Clock.Now()))
			r.Clock.Advance(time.Second)
			require.NoError(t, connector.Connect(t.Context(), wrapped(to, second, 0), r.Clock.Now()))
			r.Clock.Advance(time.Second)
			g := r.live(w, to)[0]
			require.NoError(t, connector.Connect(t.Context(), wrapped(to, first, 0), r.Clock.Now()), "an old one, published again without its time")
			all := r.live(w, to)
			require.Len(t, all, 1)
			require.Equal(t, g.Chain.Head(), all[0].Chain.Head())
			r.refresh(w, all[0])
			require.Empty(t, r.Sim.Ledger().ReplacedPresented())
			r.RequireSoundTokens(w, all[0].ID)
		})
	}
}

// A grant waits for the answer to the refresh of one that was disconnected. If all that
// comes of it is that the refresh token is spent, nobody presents it when the wait ends.
func TestAGrantWhoseAnswerIsErasedPresentsNothing(t *testing.T) {
	r := newRig(t)
	w, connector := r.resolving("a")
	login, at := r.login("one", "two"), r.Clock.Now()
	require.NoError(t, connector.Connect(t.Context(), wrapped("u", login, 0), at))
	g := r.live(w, "u")[0]
	r.Clock.Advance(time.Second)
	r.ended = r.refreshing(w, g, "one")
	r.Clock.Advance(time.Second)
	require.NoError(t, connector.Disconnect(t.Context(), store.Scope{User: "u", Broker: "coinbase", Account: "one"}, r.Clock.Now()))
	r.WaitSent()
	r.Clock.Advance(time.Second)
	require.NoError(t, connector.Connect(t.Context(), wrapped("u", login, 1), at))
	waits := r.live(w, "u")[0]
	require.NotNil(t, waits.Lease)

	r.FailWrites(true)
	r.Unblock <- struct{}{}
	require.NoError(t, r.Result(r.ended))
	r.FailWrites(false)
	entries := r.Messages(r.Subjects.RecoveryStream(), r.Subjects.Recovery(g.ID))
	require.Len(t, entries, 1)
	require.NoError(t, w.Recover(t.Context(), entries[0].Data))
	require.NoError(t, r.JS.DeleteStream(t.Context(), r.Subjects.RecoveryStream()), "acknowledged")
	_, err := r.Streams.Ensure(t.Context())
	require.NoError(t, err)

	r.Clock.Advance(waits.Lease.Until.Sub(r.Clock.Now()) + time.Minute)
	asked := len(r.Sim.Ledger().Requests)
	_, _ = w.RefreshNow(t.Context(), waits)
	require.Len(t, r.Sim.Ledger().Requests, asked)
	require.Empty(t, r.Sim.Ledger().ReplacedPresented())
	require.Empty(t, r.live(w, "u"))
}

// A worker that is cut off once it has handed a refresh token over leaves a lease that
// whoever looks at the grant next ends.
func TestALeaseOfAHandOverThatWasCutOffEnds(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	c := r.connector(w)
	login := r.login("one")
	require.NoError(t, c.Connect(t.Context(), wrapped("old", login, 0), r.Clock.Now()))
	require.Len(t, r.live(w, "old"), 1)
	r.Clock.Advance(time.Second)
	var updates atomic.Int32
	r.DB.Proxy().FailWrites(91, func(command, collection string) bool {
		return command == "update" && collection == "grants" && updates.Add(1) > 2
	})
	require.Error(t, c.Connect(t.Context(), wrapped("new", login, 0), r.Clock.Now()))
	r.WaitSent()
	r.DB.Proxy().FailWrites(0, nil)
	require.Empty(t, r.live(w, "old"))
	g := r.live(w, "new")[0]
	require.NotNil(t, g.Lease)
	require.NoError(t, r.connector(r.Worker("b")).Resolve(t.Context(), "new"))
	require.Nil(t, r.Get(w, g.ID).Lease)
	require.Equal(t, []string{"token.stored: "}, r.LifecycleEvents("new"))
	after := r.refresh(w, r.Get(w, g.ID))
	require.Equal(t, int64(2), after.Version)
	require.Nil(t, after.Unknown, "nothing was lost")
	r.RequireSoundTokens(w, g.ID)
}

// The id of a grant whose accounts are not known tells nothing of its refresh token to
// who can't make fingerprints, and one that an earlier release made is kept.
func TestTheIDOfADelayedGrantIsKeyed(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	connector := r.connector(w)
	key, err := w.Fingerprints.Key(t.Context())
	require.NoError(t, err)
	login := r.login("one")
	token := login.Accounts[0].RefreshToken
	require.NoError(t, connector.Connect(t.Context(), delayed("u", token), r.Clock.Now()))
	g := r.live(w, "u")[0]
	require.Equal(t, store.DelayedGrantID("u", "COINBASE", key.Of(token)), g.ID)
	require.NotEqual(t, store.DelayedGrantID("u", "coinbase", store.FingerprintKey{}.Of(token)), g.ID)

	for user, c := range map[string]struct{ written, by string }{
		"as written": {"Coinbase", "Coinbase"}, "by key": {"Coinbase", "coinbase"}, "both": {"coinbase", "coinbase"},
	} {
		token := r.login("of " + user).Accounts[0].RefreshToken
		require.NoError(t, connector.Connect(t.Context(), delayed(user, token), r.Clock.Now()))
		g := r.live(w, user)[0]
		require.NoError(t, w.Store.Delete(t.Context(), g))
		g.ID, g.BrokerType = store.FormerDelayedGrantID(user, c.by, token.Reveal()), c.written
		with, err := w.Fingerprints.Sealer(t.Context(), user)
		require.NoError(t, err)
		with.SealTo(g, store.TokenSet{RefreshToken: token}, r.Clock.Now(), true)
		require.NoError(t, w.Store.Insert(t.Context(), g))
		for _, state := range []store.State{store.Active, store.Expired} {
			r.Clock.Advance(time.Second)
			before := r.Get(w, g.ID)
			before.State = state
			require.NoError(t, w.Store.Save(t.Context(), before))
			require.NoError(t, connector.Connect(t.Context(), delayed(user, token), r.Clock.Now()))
			all := r.live(w, user)
			require.Len(t, all, 1, user)
			require.Equal(t, store.Active, all[0].State)
			if user == "as written" && state == store.Expired {
				require.NotEqual(t, g.ID, all[0].ID, "it can't be derived from another spelling")
			} else {
				require.Equal(t, g.ID, all[0].ID, user)
			}
		}
	}
}

// An answer to a grant that has gone meanwhile counts for the one that has come in its
// place with the same id and refresh token, and no answer after it is taken for an older one.
func TestAnAnswerToAGrantThatWasConnectedAgainIsNotNewerThanTheNext(t *testing.T) {
	r := newRig(t)
	w, c := r.resolving("a")
	i := meshsim.DefaultInstitution("coinbase")
	i.Rotation = meshsim.RotateNever
	login, err := r.Sim.Connect(meshsim.ConnectSpec{BrokerType: "coinbase", Institution: &i, Accounts: []meshsim.Account{{ID: "one"}}})
	require.NoError(t, err)
	require.NoError(t, c.Connect(t.Context(), wrapped("u", &login, 0), r.Clock.Now()))
	g := r.live(w, "u")[0]
	for range 3 {
		r.Clock.Advance(time.Second)
		g = r.refresh(w, g)
	}
	done := r.refreshing(w, g, "one")
	r.Clock.Advance(time.Second)
	require.NoError(t, c.Disconnect(t.Context(), store.Scope{User: "u"}, r.Clock.Now()))
	r.Clock.Advance(time.Second)
	require.NoError(t, c.Connect(t.Context(), wrapped("u", &login, 0), r.Clock.Now()))
	r.Unblock <- struct{}{}
	require.NoError(t, r.Result(done))
	g = r.Get(w, g.ID)
	require.Zero(t, g.Applied, "it is the epoch of a grant that is gone")
	require.Equal(t, int64(2), g.Version)
	r.Clock.Advance(10 * time.Minute)
	after := r.refresh(w, g)
	require.Equal(t, int64(3), after.Version)
	require.Equal(t, after.Epoch, after.Applied)
	r.RequireSoundTokens(w, g.ID)
}

// Of connects of the same time the one that was published last counts, whichever is
// handled first and whatever the ids of the grants are. One that comes again does not.
func TestOfConnectsOfTheSameTimeTheOnePublishedLastCounts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.Worker("a")
	c := r.connector(w)
	at := r.Clock.Now()
	connect := func(published int, in events.Connected) {
		in.Published = at.Add(time.Duration(published))
		require.NoError(t, c.Connect(t.Context(), in, at))
	}
	for i := range 6 { // the ids are hashes
		for _, order := range [][]int{{1, 2}, {2, 1}} {
			name := func(s string) string { return fmt.Sprint(s, i, order[0]) }

			old, renamed, login := name("old"), name("new"), r.login(name("moved"))
			move := map[int]events.Connected{1: wrapped(old, login, 0), 2: wrapped(renamed, login, 0)}
			for _, published := range append(order, 1, 2, 1) {
				connect(published, move[published])
			}
			require.Empty(t, r.live(w, old))
			require.Len(t, r.live(w, renamed), 1)
			connect(3, move[1]) // published again
			require.Empty(t, r.live(w, old))
			r.refresh(w, r.live(w, renamed)[0])
			connect(1, move[1])
			require.Len(t, r.live(w, old, renamed), 1)

			logins := map[int]*meshsim.Connection{1: r.login(name("one")), 2: r.login(name("one"))}
			for _, published := range append(order, 1, 2, 1) {
				connect(published, wrapped(name("same"), logins[published], 0))
			}
			if order[0] == 1 { // else nobody knows that it was published before
				connect(3, wrapped(name("same"), logins[1], 0))
			}
			all := r.live(w, name("same"))
			require.Len(t, all, 1)
			tokens, err := w.Tokens(t.Context(), all[0])
			require.NoError(t, err)
			require.True(t, logins[2].Accounts[0].RefreshToken.Equal(tokens.RefreshToken))

			several := map[int]events.Connected{1: wrapped(name("several"), r.login(name("two"), name("three")), 0, 1), 2: wrapped(name("several"), r.login(name("two")), 0)}
			for _, published := range append(order, 1, 2, 1) {
				connect(published, several[published])
			}
			var accounts [][]string
			for _, g := range r.live(w, name("several")) {
				accounts = append(accounts, g.AccountIDs())
			}
			require.ElementsMatch(t, [][]string{{name("two")}, {name("three")}}, accounts)
			require.NotEqual(t, store.GrantID(name("several"), "coinbase", name("two"), name("three")), grantOf(r.live(w, name("several")), name("two")))
		}
	}
	require.Empty(t, r.Sim.Ledger().ReplacedPresented())
}

// grantOf is the id of the grant that has an account; empty: none has.
func grantOf(all []*store.Grant, account string) string {
	for _, g := range all {
		if g.Account(account) != nil {
			return g.ID
		}
	}
	return ""
}

// Grants that an earlier release stored get their chains, and are united.
func TestGrantsOfAnEarlierReleaseThatShareARefreshToken(t *testing.T) {
	r := newRig(t)
	w, _ := r.resolving("a")
	login := r.login("one", "two")
	sealer, err := w.Fingerprints.Sealer(t.Context(), "user")
	require.NoError(t, err)
	for i, id := range []string{"first", "second"} {
		a := login.Accounts[i]
		g := &store.Grant{
			ID: id, UserID: "user", BrokerType: "coinbase", BrokerName: "Coinbase", Accounts: []store.Account{{ID: a.AccountID}},
			State: store.Active, ConnectedAt: r.Clock.Now(), Version: 1, Rev: 1, Epoch: 1,
			Access: lasting(r.Clock.Now(), hour), Refresh: endless(r.Clock.Now()),
		}
		g.Sealed = store.SealTokens(sealer.Sealer, store.TokenSet{
			RefreshToken: a.RefreshToken, Origin: store.OriginOf(a.RefreshToken), Accounts: []store.AccountToken{{AccountID: a.AccountID, AccessToken: a.AccessToken}},
		}, g.Binding())
		require.NoError(t, w.Store.Insert(t.Context(), g))
	}
	require.NoError(t, w.Reconciler.Pass(t.Context()))
	all := r.live(w, "user")
	require.Len(t, all, 1)
	require.ElementsMatch(t, []string{"one", "two"}, all[0].AccountIDs())
	r.refresh(w, all[0])
	r.RequireSoundTokens(w, all[0].ID)
}

// A refresh that named no account is for those that a connect of the same login names.
func TestATokenWithoutAnAccountIsForThoseThatAreNamedLater(t *testing.T) {
	r := newRig(t)
	server := meshsimtest.NewServer(t)
	r.MeshURL = server.URL
	w := r.Worker("a")
	c := r.connector(w)
	login := r.login("one", "two")
	require.NoError(t, c.Connect(t.Context(), delayed("u", login.Accounts[0].RefreshToken), r.Clock.Now()))
	server.Set(meshsimtest.Content(`{"status":"succeeded","expiresInSeconds":3600,"brokerAccountTokens":[{"accessToken":"new-access","refreshToken":"new-refresh"}]}`))
	r.Clock.Advance(time.Second)
	r.refresh(w, r.live(w, "u")[0])
	r.Clock.Advance(time.Second)
	require.NoError(t, c.Connect(t.Context(), wrapped("u", login, 0, 1), r.Clock.Now()))
	all := r.live(w, "u")
	require.Len(t, all, 1)
	tokens, err := w.Tokens(t.Context(), all[0])
	require.NoError(t, err)
	require.Equal(t, "new-refresh", tokens.RefreshToken.Reveal())
	require.Len(t, tokens.Accounts, 2)
	for _, id := range []string{"one", "two"} {
		require.Equal(t, "new-access", tokens.Account(id).AccessToken.Reveal(), id)
	}
}

// A connect that is published again while a code is presented drops neither the step
// nor its lease.
func TestAConnectPublishedAgainWhileACodeIsAwaited(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	c := r.connector(w)
	in := wrapped("u", r.login("one"), 0)
	require.NoError(t, c.Connect(t.Context(), in, r.Clock.Now()))
	g := r.live(w, "u")[0]
	for _, leased := range []bool{false, true} {
		g = r.Get(w, g.ID)
		g.State, g.Reason, g.MFA = store.MustAct, events.ReasonMFARequired, &store.MFA{Until: r.Clock.Now().Add(time.Hour)}
		if leased {
			g.Lease = &store.Lease{Owner: "code", Until: r.Clock.Now().Add(time.Minute)}
		}
		require.NoError(t, w.Store.Save(t.Context(), g))
		r.Clock.Advance(time.Second)
		require.NoError(t, c.Connect(t.Context(), in, r.Clock.Now()))
		after := r.Get(w, g.ID)
		require.Equal(t, store.MustAct, after.State)
		require.NotNil(t, after.MFA)
		require.Equal(t, leased, after.Lease != nil)
	}
}

// An answer that lies in the recovery stream is not lost where another user connects
// with the token that it replaced, however long the database was away.
func TestAMoveWaitsForAnAnswerInTheRecoveryStream(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	c := r.connector(w)
	login := r.login("one")
	require.NoError(t, c.Connect(t.Context(), wrapped("old", login, 0), r.Clock.Now()))
	g := r.live(w, "old")[0]
	r.FailWrites(true)
	_, err := w.RefreshNow(t.Context(), g)
	require.NoError(t, err)
	r.FailWrites(false)
	r.Clock.Advance(30 * time.Minute)
	var leased *store.LeasedError
	require.ErrorAs(t, c.Connect(t.Context(), wrapped("new", login, 0), r.Clock.Now()), &leased)
	require.True(t, leased.Until.After(r.Clock.Now()))
	at := r.Clock.Now()
	for _, entry := range r.RecoveryEntries() {
		require.NoError(t, w.Recover(t.Context(), entry))
	}
	require.NoError(t, c.Connect(t.Context(), wrapped("new", login, 0), at))
	require.Empty(t, r.live(w, "old"))
	all := r.live(w, "new")
	require.Len(t, all, 1)
	r.refresh(w, all[0])
	r.RequireSoundTokens(w, all[0].ID)
	require.Empty(t, r.Sim.Ledger().ReplacedPresented())
}
