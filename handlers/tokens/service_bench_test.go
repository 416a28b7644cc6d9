package tokens

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
	"github.com/latchkey/latchkey/store/envelope"
)

// grantOf is a grant of a user, sealed by an envelope.
func grantOf(t testing.TB, e *envelope.Envelope, user string) *store.Grant {
	t.Helper()
	sealer, err := e.Sealer(t.Context(), user)
	require.NoError(t, err)
	now := store.Milli(time.Now())
	end := now.Add(24 * time.Hour)
	g := &store.Grant{
		ID: "grant of " + user, UserID: user, BrokerType: "bench", BrokerName: "Bench", State: store.Active, Version: 1, UsedIn: 1,
		Accounts: []store.Account{{ID: "account", Name: "Account", ExpiresAt: &end}},
		Access:   &store.Lifetime{Since: now, ExpiresAt: &end}, Refresh: &store.Lifetime{Since: now, ExpiresAt: &end},
	}
	g.Sealed = store.SealTokens(sealer, store.TokenSet{
		Accounts:     []store.AccountToken{{AccountID: "account", AccessToken: secret.New(strings.Repeat("a", 100))}},
		RefreshToken: secret.New(strings.Repeat("r", 100)),
	}, g.Binding())
	return g
}

// warmRequest returns what is done for a token request about a user who was
// asked for before, from what was read of it to the body of the answer.
func warmRequest(t testing.TB) func() {
	f := &fixture{t: t}
	e := f.envelope()
	g := grantOf(t, e, "user")
	s := f.tokenService(e, func(context.Context, string) ([]*store.Grant, error) { return []*store.Grant{g}, nil })
	request := []byte(`{"userId":"user"}`)
	return func() {
		in, err := events.DecodeTokenRequest(request)
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.get(t.Context(), in, &audit.Record{}, nobody)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = out.encode(in.SealTo); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkWarmRequest(b *testing.B) {
	do := warmRequest(b)
	b.ReportAllocs()
	for b.Loop() {
		do()
	}
}
