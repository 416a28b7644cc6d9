package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
)

func TestAnAccountInANewerGrant(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*store.Grant)
		newer  bool
	}{
		"later":               {func(g *store.Grant) { g.ConnectedAt = now.Add(time.Second) }, true},
		"earlier":             {func(g *store.Grant) { g.ConnectedAt = now.Add(-time.Second) }, false},
		"split off":           {func(g *store.Grant) { g.Split = 1 }, true},
		"published later":     {func(g *store.Grant) { g.Published = 1 }, true},
		"in the order of ids": {func(*store.Grant) {}, true},
		"before all others":   {func(g *store.Grant) { g.ID = "a" }, false},
		"itself":              {func(g *store.Grant) { g.ID, g.ConnectedAt = "g", now.Add(time.Second) }, false},
		"revoked":             {func(g *store.Grant) { g.ConnectedAt, g.State = now.Add(time.Second), store.Revoked }, false},
		"at another broker":   {func(g *store.Grant) { g.ConnectedAt, g.BrokerType = now.Add(time.Second), "kraken" }, false},
		"in another case":     {func(g *store.Grant) { g.ConnectedAt, g.BrokerType = now.Add(time.Second), "COINBASE" }, true},
		"without the account": {func(g *store.Grant) { g.ConnectedAt, g.Accounts = now.Add(time.Second), nil }, false},
		"the account later": {func(g *store.Grant) {
			at := now.Add(time.Second)
			g.ConnectedAt, g.Accounts[0].ConnectedAt = now.Add(-time.Second), &at
		}, true},
	} {
		g, other := active("g"), active("h")
		c.change(other)
		require.Equal(t, c.newer, g.InNewer("acc-1", []*store.Grant{g, other}), what)
		require.False(t, g.InNewer("", []*store.Grant{g, other}), what)
		if other.ID != g.ID && g.InNewer("acc-1", []*store.Grant{other}) {
			require.False(t, other.InNewer("acc-1", []*store.Grant{g}), what)
		}
	}
}

func TestAnUnchangedGrant(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*store.Grant)
		same   bool
	}{
		"nothing":             {func(*store.Grant) {}, true},
		"another revision":    {func(g *store.Grant) { g.Rev++ }, false},
		"the outbox was sent": {func(g *store.Grant) { g.Outbox = nil }, false},
		"a schedule was made": {func(g *store.Grant) { g.Due.Stream = "s" }, false},
		"nothing is due":      {func(g *store.Grant) { g.Due = nil }, true},
	} {
		listed := active("g")
		listed.Outbox = outbox(now)
		g := listed.Clone()
		c.change(g)
		require.Equal(t, c.same, g.Unchanged(listed), what)
	}
}

func TestAuditRecordOfAGrant(t *testing.T) {
	require.Equal(t, audit.Record{
		Action: audit.Sealed, Outcome: audit.OutcomeTrim, User: "user",
		Grants: []audit.Grant{{ID: "g", Broker: "coinbase", Version: 1, Accounts: []string{"acc-1"}}},
	}, active("g").AuditRecord(audit.Sealed, audit.OutcomeTrim, []string{"acc-1"}))
}
