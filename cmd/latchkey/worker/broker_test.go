package worker_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
)

// spellings name one broker.
var spellings = []string{"binanceOAuth", "binanceoauth", "BINANCEOAUTH"}

func issued(c meshsim.Connection) string { return c.Accounts[0].AccessToken.Reveal() }

// settled waits until a user has so many grants, and returns them.
func (h *harness) settled(user string, n int) []store.Grant {
	h.t.Helper()
	h.handled()
	h.eventually(func() bool { return len(h.grants(user)) == n }, "grants remain")
	return h.grants(user)
}

func TestABrokerIsOneHoweverConnectsWriteIt(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	for _, first := range spellings {
		for _, second := range spellings {
			for _, late := range []bool{false, true} {
				t.Run(fmt.Sprint(first, " ", second, " late ", late), func(t *testing.T) {
					h, user := h.in(t), t.Name()
					older, newer := h.issue(first, "a"+user), h.issue(second, "a"+user)
					at := time.Now().Add(-time.Minute)
					if late {
						h.publishConnected(user, newer, at.Add(time.Second))
						h.event(events.TokenStored, user)
						h.publishConnected(user, older, at)
					} else {
						h.publishConnected(user, older, at)
						h.event(events.TokenStored, user)
						h.publishConnected(user, newer, at.Add(time.Second))
						h.nth(events.TokenStored, user, 2)
					}
					g := h.settled(user, 1)[0]
					require.Equal(t, second, g.BrokerType)
					require.Equal(t, store.GrantID(user, "binanceoauth", "a"+user), g.ID)
					for _, asked := range append([]string{""}, spellings...) {
						reply := h.get(events.TokenRequest{UserID: user, BrokerType: asked})
						require.Len(t, reply.AccessTokens, 1)
						require.Equal(t, issued(newer), reply.AccessTokens[0].AccessToken.Reveal())
						require.Equal(t, second, reply.AccessTokens[0].BrokerType)
					}
					require.Empty(t, h.eventsOf(events.TokenRevoked, user))
					for _, e := range h.eventsOf("", user) {
						require.Equal(t, g.ID, e.Data.GrantID)
					}
				})
			}
		}
	}
}

// Accounts move between grants of one broker, however it is written.
func TestAccountsConnectedInAnotherGroupingAndCase(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	h.publishConnected("u", h.issue("binanceOAuth", "a", "b"), time.Now().Add(-time.Minute))
	h.event(events.TokenStored, "u")
	newer := h.issue("BinanceOAuth", "a")
	h.publishConnected("u", newer, time.Now())
	h.nth(events.TokenStored, "u", 3) // and the one that lost an account
	grants := h.settled("u", 2)
	for _, g := range grants {
		require.Len(t, g.Accounts, 1)
	}
	for _, token := range h.get(events.TokenRequest{UserID: "u", BrokerType: "binanceoauth"}).AccessTokens {
		require.Equal(t, token.AccountID == "a", token.AccessToken.Reveal() == issued(newer))
		require.Equal(t, map[string]string{"a": "BinanceOAuth", "b": "binanceOAuth"}[token.AccountID], token.BrokerType)
	}
}

func TestADisconnectHoweverItWritesTheBroker(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	for _, stored := range spellings {
		for _, said := range spellings {
			for _, account := range []string{"", "a"} {
				t.Run(fmt.Sprint(stored, " ", said, " ", account), func(t *testing.T) {
					h, user := h.in(t), t.Name()
					if account != "" {
						account += user
					}
					connection := h.issue(stored, "a"+user)
					h.publishConnected(user, connection, time.Now().Add(-time.Minute))
					h.publishConnected(user, h.issue("vanguard", "a"+user), time.Now().Add(-time.Minute))
					h.nth(events.TokenStored, user, 2)
					h.disconnect(user, said, account)
					require.Equal(t, events.ReasonDisconnected, h.event(events.TokenRevoked, user).Data.Reason)
					require.Equal(t, "vanguard", h.settled(user, 1)[0].BrokerType)
					// One from before it comes late, however it writes the broker.
					h.publishConnected(user, connection, time.Now().Add(-2*time.Minute))
					connection = h.issue("BinanceOAUTH", "a"+user)
					h.publishConnected(user, connection, time.Now().Add(-2*time.Minute))
					require.Equal(t, "vanguard", h.settled(user, 1)[0].BrokerType)
				})
			}
		}
	}
}

// former stores what a connect became in an earlier release: a grant under an id
// derived from the broker type as written.
func (h *harness) former(user string, c meshsim.Connection, broker string, at time.Time, delayed bool) store.Grant {
	h.t.Helper()
	cfg, err := h.stack.Config(h.settings()...)
	require.NoError(h.t, err)
	db, err := worker.OpenStore(h.ctx, cfg.MongoDB)
	require.NoError(h.t, err)
	defer func() { require.NoError(h.t, db.Close(h.ctx)) }()
	sealing, err := worker.Envelope(h.ctx, cfg, db, time.Now, nil)
	require.NoError(h.t, err)
	defer sealing.Close()
	at = store.Milli(at)
	end, account := at.Add(life), c.Accounts[0]
	g := &store.Grant{
		ID: store.FormerGrantID(user, broker, account.AccountID), UserID: user, BrokerType: broker, State: store.Active, ConnectedAt: at, Version: 1,
		Accounts: []store.Account{{ID: account.AccountID, ExpiresAt: &end}},
		Access:   &store.Lifetime{Since: at, ExpiresAt: &end}, Refresh: &store.Lifetime{Since: at},
		Due: &store.Due{At: time.Now().Add(time.Hour), Action: store.Refresh},
	}
	tokens := store.TokenSet{
		Accounts:     []store.AccountToken{{AccountID: account.AccountID, AccessToken: account.AccessToken}},
		RefreshToken: account.RefreshToken, Origin: store.OriginOf(account.RefreshToken),
	}
	if delayed {
		g.ID = store.FormerDelayedGrantID(user, broker, account.RefreshToken.Reveal())
		g.Accounts, g.Access, tokens.Accounts = []store.Account{}, nil, nil
	}
	sealer, err := sealing.Sealer(h.ctx, user)
	require.NoError(h.t, err)
	g.Sealed = store.SealTokens(sealer, tokens, g.Binding())
	require.NoError(h.t, db.Insert(h.ctx, g))
	return *g
}

// inCase is a connection whose payload writes the broker type otherwise.
func inCase(c meshsim.Connection, from, to string) meshsim.Connection {
	c.Payload = secret.New(strings.ReplaceAll(c.Payload.Reveal(), strconv.Quote(from), strconv.Quote(to)))
	return c
}

func TestAGrantOfAnEarlierReleaseIsTheSameHoweverConnectsWriteTheBroker(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	at := time.Now().Add(-10 * time.Minute)
	for _, stored := range spellings {
		for _, comes := range spellings {
			t.Run(fmt.Sprint("newer ", stored, " ", comes), func(t *testing.T) {
				h, user := h.in(t), t.Name()
				former := h.former(user, h.issue(stored, "a"+user), stored, at, false)
				newer := h.issue(comes, "a"+user)
				h.publishConnected(user, newer, at.Add(time.Minute))
				h.event(events.TokenStored, user)
				if stored == comes || stored == "binanceoauth" {
					require.Equal(t, former.ID, h.settled(user, 1)[0].ID, "subscribers keep the id")
					require.Empty(t, h.eventsOf(events.TokenRevoked, user))
				} else {
					revoked := h.event(events.TokenRevoked, user)
					require.Equal(t, events.ReasonReplaced, revoked.Data.Reason)
					require.Equal(t, former.ID, revoked.Data.GrantID)
					require.Equal(t, store.GrantID(user, "binanceoauth", "a"+user), h.settled(user, 1)[0].ID)
				}
				reply := h.get(events.TokenRequest{UserID: user})
				require.Len(t, reply.AccessTokens, 1)
				require.Equal(t, issued(newer), reply.AccessTokens[0].AccessToken.Reveal())
			})
			for name, again := range map[string]time.Time{"the same": at, "older": at.Add(-time.Minute), "again without its time": {}} {
				t.Run(fmt.Sprint(name, " ", stored, " ", comes), func(t *testing.T) {
					h, user := h.in(t), t.Name()
					c := h.issue(stored, "a"+user)
					former := h.former(user, c, stored, at, false)
					refreshed := h.get(h.refusing(events.TokenRequest{UserID: user})).AccessTokens[0].AccessToken
					h.publishConnected(user, inCase(c, stored, comes), again)
					require.Equal(t, former.ID, h.settled(user, 1)[0].ID)
					require.Empty(t, h.eventsOf(events.TokenStored, user))
					require.Equal(t, refreshed.Reveal(), h.get(events.TokenRequest{UserID: user}).AccessTokens[0].AccessToken.Reveal())
				})
			}
			t.Run(fmt.Sprint("delayed ", stored, " ", comes), func(t *testing.T) {
				h, user := h.in(t), t.Name()
				c := h.issueSpec(meshsim.ConnectSpec{BrokerType: comes, Delayed: true}, "a"+user)
				h.former(user, c, stored, at, true)
				h.publishConnected(user, c, time.Time{})
				h.event(events.TokenRefreshed, user)
				h.settled(user, 1)
			})
		}
	}
	require.NoError(t, h.stack.Mesh.WaitIdle(h.ctx))
	require.Empty(t, h.stack.Mesh.Ledger().ReplacedPresented())
}

// Of two that an earlier release stored for one account, the dead one is not given
// out, and goes when the user is next looked at.
func TestTwoGrantsOfAnEarlierReleaseThatAreOne(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	at := time.Now().Add(-10 * time.Minute)
	h.former("u", h.issue("coinbase", "a"), "coinbase", at, false)
	newer := h.issue("Coinbase", "a")
	kept := h.former("u", newer, "Coinbase", at.Add(time.Minute), false)
	for _, asked := range []string{"", "coinbase", "Coinbase"} {
		for _, account := range []string{"", "a"} {
			reply := h.get(events.TokenRequest{UserID: "u", BrokerType: asked, AccountID: account})
			require.Len(t, reply.AccessTokens, 1)
			require.Equal(t, issued(newer), reply.AccessTokens[0].AccessToken.Reveal())
			require.Empty(t, reply.Unavailable)
		}
	}
	h.publishConnected("u", h.issue("kraken", "k"), time.Time{})
	require.Equal(t, events.ReasonReplaced, h.event(events.TokenRevoked, "u").Data.Reason)
	left := h.settled("u", 2)
	require.True(t, left[0].ID == kept.ID || left[1].ID == kept.ID)
}

// A worker may be killed between any two writes, so that the same connect must not
// be stored beside what it became in an earlier release, not even for a moment.
func TestAConnectThatAnEarlierReleaseStoredIsNotStoredBesideIt(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	if h.stack.MongoDB == nil {
		t.Skip("needs the embedded database")
	}
	h.worker()
	at := time.Now().Add(-10 * time.Minute)
	c := h.issue("binanceOAuth", "a")
	former := h.former("u", c, "binanceOAuth", at, false)
	h.stack.MongoDB.Proxy().FailWrites(91, func(command, collection string) bool { return command == "insert" && collection == "grants" })
	h.publishConnected("u", c, at)
	require.Equal(t, former.ID, h.settled("u", 1)[0].ID)
}
