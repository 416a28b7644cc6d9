package store_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

// times generates times as they are stored.
var times = rapid.Map(rapid.Int64Range(0, 253402300799_999), func(ms int64) time.Time { return time.UnixMilli(ms).UTC() })

var lives = rapid.Custom(func(t *rapid.T) store.Lifetime {
	end := rapid.Ptr(times, true)
	return store.Lifetime{Since: times.Draw(t, "since"), ExpiresAt: end.Draw(t, "end"), Assumed: rapid.Bool().Draw(t, "assumed"), RequestedAt: end.Draw(t, "asked")}
})

// grants generates grants of every shape that can be stored.
var grants = rapid.Custom(func(t *rapid.T) store.Grant {
	text := rapid.String()
	count := rapid.Int64()
	at := rapid.Ptr(times, true)
	bytes := rapid.SliceOfN(rapid.Byte(), 1, 20)
	g := store.Grant{
		ID: rapid.StringMatching(`[a-z2-7]{32}`).Draw(t, "id"), UserID: text.Draw(t, "user"), BrokerType: text.Draw(t, "broker"), BrokerName: text.Draw(t, "name"),
		Accounts: rapid.SliceOf(rapid.Custom(func(t *rapid.T) store.Account {
			return store.Account{ID: text.Draw(t, "account"), Name: text.Draw(t, "name"), ExpiresAt: at.Draw(t, "end")}
		})).Draw(t, "accounts"),
		State:       rapid.SampledFrom([]store.State{store.Active, store.MustAct, store.Expired, store.Revoked}).Draw(t, "state"),
		Reason:      events.Reason(text.Draw(t, "reason")),
		ConnectedAt: times.Draw(t, "connected"), Version: count.Draw(t, "version"), Rev: count.Draw(t, "rev"),
		Sealed: envelope.Blob{KeyID: text.Draw(t, "key"), Data: bytes.Draw(t, "sealed")},
		Access: rapid.Ptr(lives, true).Draw(t, "access"), Refresh: rapid.Ptr(lives, true).Draw(t, "refresh"),
		Attempts: rapid.Int().Draw(t, "tries"), Deferrals: rapid.Int().Draw(t, "waits"), Unknown: at.Draw(t, "unknown"),
		SendAccess: rapid.Bool().Draw(t, "send access"), Warned: events.Reason(text.Draw(t, "warned")),
		Epoch: count.Draw(t, "epoch"), Applied: count.Draw(t, "applied"), PurgeAt: at.Draw(t, "purge"),
	}
	if rapid.Bool().Draw(t, "has due") {
		g.Due = &store.Due{At: times.Draw(t, "due"), Action: store.Renew, Stream: text.Draw(t, "stream"), Reschedules: rapid.Int().Draw(t, "pokes")}
		if g.Due.Reschedules > 0 {
			g.Due.RescheduledAt = times.Draw(t, "poked")
		}
	}
	if rapid.Bool().Draw(t, "has lease") {
		g.Lease = &store.Lease{Owner: text.Draw(t, "owner"), Until: times.Draw(t, "until")}
	}
	if rapid.Bool().Draw(t, "has outbox") {
		g.Outbox = &store.Outbox{Since: times.Draw(t, "since"), Schedule: rapid.Bool().Draw(t, "schedule")}
		for range rapid.IntRange(0, 3).Draw(t, "events") {
			g.Outbox.Events = append(g.Outbox.Events, store.OutboxEvent{ID: text.Draw(t, "id"), Subject: text.Draw(t, "subject"), Data: bytes.Draw(t, "data")})
		}
	}
	return g
})

func TestGrantRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := grants.Draw(t, "grant")
		b, err := bson.Marshal(want)
		require.NoError(t, err)
		var got store.Grant
		require.NoError(t, bson.Unmarshal(b, &got))
		require.Equal(t, want, got)
	})
}

func TestGrantRoundTripOverTheWire(t *testing.T) {
	s := open(t)
	seen := map[string]bool{}
	for seed := range 25 {
		g := grants.Example(seed)
		if seen[g.ID] {
			continue
		}
		seen[g.ID] = true
		insert(t, s, &g)
		require.Equal(t, &g, get(t, s, g.ID))
		require.NoError(t, s.Save(t.Context(), &g))
		require.Equal(t, &g, get(t, s, g.ID))
	}
}

func TestCloneSharesNothingThatIsChanged(t *testing.T) {
	g := active("g")
	g.Lease, g.Outbox = &store.Lease{Owner: "w", Until: now}, outbox(now)
	want := active("g")
	want.Lease, want.Outbox = &store.Lease{Owner: "w", Until: now}, outbox(now)

	c := g.Clone()
	require.Equal(t, g, c)
	end := now.Add(9 * time.Hour)
	c.Accounts[0].Name, c.Accounts[0].ExpiresAt = "changed", &end
	c.Accounts = append(c.Accounts, store.Account{ID: "more"})
	c.Access.ExpiresAt, c.Refresh.RequestedAt = &end, &end
	c.Due.Stream, c.Lease.Owner = "changed", "changed"
	c.Outbox.Schedule, c.Outbox.Events[0].ID = false, "changed"
	c.Outbox.Events = append(c.Outbox.Events, store.OutboxEvent{ID: "more"})
	c.Unknown, c.PurgeAt = &end, &end
	require.Equal(t, want, g)

	rapid.Check(t, func(t *rapid.T) {
		g := grants.Draw(t, "grant")
		require.Equal(t, &g, g.Clone())
	})
}

func TestLifeOver(t *testing.T) {
	var none *store.Lifetime
	require.True(t, none.Expired(now))
	require.False(t, (&store.Lifetime{Since: now}).Expired(now.Add(1000*time.Hour)))
	l := &store.Lifetime{ExpiresAt: &now}
	require.False(t, l.Expired(now.Add(-1)))
	require.True(t, l.Expired(now))
}

func TestLifecycleOfAGrant(t *testing.T) {
	g := active("g")
	end := now.Add(time.Hour)
	require.Equal(t, events.Lifecycle{
		UserID: "user", GrantID: "g", BrokerType: "coinbase", BrokerName: "Coinbase",
		Accounts: []events.Account{{AccountID: "acc-1", AccountName: "Main"}}, Version: 1,
		ExpiresAt: &end, Reason: events.ReasonRejected,
	}, g.Lifecycle(events.ReasonRejected))
	require.NotNil(t, (&store.Grant{}).Lifecycle("").Accounts, "an empty list, not null")
	require.Equal(t, "Main", g.Account("acc-1").Name)
	require.Nil(t, g.Account("none"))
	require.Equal(t, envelope.Binding{Purpose: envelope.PurposeTokenSet, User: "user", Broker: "coinbase", Grant: "g", Version: 1}, g.Binding())
}

func TestGrantIDs(t *testing.T) {
	require.NotEqual(t, store.GrantID("ab", "c"), store.GrantID("a", "bc"))
	require.NotEqual(t, store.GrantID("u", "b", "ab", "c"), store.GrantID("u", "b", "a", "bc"))
	require.NotEqual(t, store.GrantID("u", "b", "t"), store.DelayedGrantID("u", "b", "t"))
	require.NotEqual(t, store.DelayedGrantID("u", "b", "t1"), store.DelayedGrantID("u", "b", "t2"))
	accounts := []string{"b", "a"}
	require.Regexp(t, `^[a-z2-7]{32}$`, store.GrantID("user", "broker", accounts...))
	require.Equal(t, []string{"b", "a"}, accounts, "the caller's list is left as it is")

	type named struct {
		user, broker string
		accounts     []string
	}
	// Few and short texts, so that many different lists concatenate to the same.
	text := rapid.StringMatching(`[ab]{0,2}`)
	seen := map[string]named{}
	rapid.Check(t, func(t *rapid.T) {
		n := named{text.Draw(t, "user"), text.Draw(t, "broker"), rapid.SliceOfN(text, 0, 4).Draw(t, "accounts")}
		id := store.GrantID(n.user, n.broker, n.accounts...)
		require.Equal(t, id, store.GrantID(n.user, n.broker, rapid.Permutation(n.accounts).Draw(t, "order")...))
		slices.Sort(n.accounts)
		if before, ok := seen[id]; ok {
			require.Equal(t, before.user, n.user)
			require.Equal(t, before.broker, n.broker)
			require.True(t, slices.Equal(before.accounts, n.accounts))
		}
		seen[id] = n
	})
}

func TestMilli(t *testing.T) {
	in := time.Date(2031, 5, 6, 9, 8, 9, 250_999_999, time.FixedZone("", 7200))
	require.Equal(t, now, store.Milli(in))
}
