package handlers_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim/meshsimtest"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
)

// published is a connect of "u" as a worker reads it.
func (p *partial) published(broker, entries string, more ...string) events.Connected {
	p.T.Helper()
	extra := ""
	for _, m := range more {
		extra += "," + m
	}
	in, err := events.DecodeConnected([]byte(`{"userId":"u"` + extra + `,"payload":{"brokerType":"` + broker + `","expiresInSeconds":3600,"accountTokens":[` + entries + `]}}`))
	require.NoError(p.T, err)
	return in
}

func (p *partial) connects(in events.Connected) {
	p.T.Helper()
	at := p.Clock.Now()
	if !in.ConnectedAt.IsZero() {
		at = in.ConnectedAt
	}
	require.NoError(p.T, p.connector(p.w).Connect(p.T.Context(), in, at))
}

// A connect that names no account is handed out, refreshed at once with its access token,
// and has the account's id from then on.
func TestAConnectThatNamesNoAccountIsHandedOut(t *testing.T) {
	p := newPartial(t)
	p.connects(p.published("weBull", `{"accessToken":"A","refreshToken":"R","tokenId":"T","tradeToken":"W"}`))
	tokens := p.tokenService(p.w, 0)
	reply, err := tokens.Get(t.Context(), events.TokenRequest{UserID: "u"}, &audit.Record{})
	require.NoError(t, err)
	shape, err := reply.Encode()
	require.NoError(t, err)
	require.Contains(t, string(shape), `{"accountId":"","accountName":"","accessToken":"A","brokerType":"weBull","brokerName":"","tokenId":"T"}`)

	g := p.live(p.w, "u")[0]
	require.Empty(t, g.Accounts, "an account with an empty id")
	require.Equal(t, p.Clock.Now(), g.Due.At)
	p.covers("one")
	require.NoError(t, p.w.HandleDue(t.Context(), due(g)))
	require.Contains(t, p.server.Asked, `"accessToken":"A","tradeToken":"W"`)
	given, _, unavailable := p.ask()
	require.Equal(t, map[string]string{"one": "one-1"}, given)
	require.Empty(t, unavailable)
	set, err := p.w.Tokens(t.Context(), p.Get(p.w, g.ID))
	require.NoError(t, err)
	require.Equal(t, "T", set.Account("one").TokenID.Reveal())
}

// What names an account of a login, and what names none, are one grant in any order.
func TestAConnectThatNamesNoAccountJoinsItsLogin(t *testing.T) {
	const one, two, bare, unnamed = `{"account":{"accountId":"one"},"accessToken":"B","refreshToken":"R"}`, `{"account":{"accountId":"two"},"accessToken":"C","refreshToken":"R"}`,
		`{"account":{"accountId":"one"},"refreshToken":"R"}`, `{"accessToken":"A","refreshToken":"R"}`
	for name, c := range map[string]struct {
		connects []string
		want     map[string]string
	}{
		"a newer token for the account":      {[]string{unnamed, one}, map[string]string{"one": "B"}},
		"the token of the account":           {[]string{unnamed, bare}, map[string]string{"one": "A"}},
		"the token of the account, later":    {[]string{bare, unnamed}, map[string]string{"one": "A"}},
		"a newer one of the account, later":  {[]string{one, unnamed}, map[string]string{"one": "A"}},
		"one of several that have their own": {[]string{unnamed, one + "," + two}, map[string]string{"one": "B", "two": "C"}},
		"the same, later":                    {[]string{one + "," + two, unnamed}, map[string]string{"one": "B", "two": "C"}},
		"several without a name, later":      {[]string{one, `{"accessToken":"A1","refreshToken":"R"},{"accessToken":"A2","refreshToken":"R"}`}, map[string]string{"one": "B"}},
		"twice":                              {[]string{unnamed, unnamed}, map[string]string{"": "A"}},
		"a newer one, without a name again":  {[]string{unnamed, `{"accessToken":"B","refreshToken":"R"}`}, map[string]string{"": "B"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPartial(t)
			for _, entries := range c.connects {
				p.connects(p.published("coinbase", entries))
				p.Clock.Advance(time.Second)
			}
			all := p.live(p.w, "u")
			require.Len(t, all, 1)
			require.Nil(t, all[0].Account(""))
			given, _, unavailable := p.ask()
			require.Equal(t, c.want, given)
			require.Empty(t, unavailable)
		})
	}
}

// A connect without a refresh token that comes again changes nothing but what it newly
// tells: neither the end of its tokens, nor a refresh token that the grant has.
func TestAccessTokensPublishedAgainChangeNothing(t *testing.T) {
	const named = `{"account":{"accountId":"one"},"accessToken":"A"}`
	for name, c := range map[string]struct{ first, again, changed string }{
		"of an account":           {named, named, `{"account":{"accountId":"one"},"accessToken":"B"}`},
		"without an account":      {`{"accessToken":"A"}`, `{"accessToken":"A"}`, ""},
		"managed":                 {`{"account":{"accountId":"one"},"accessToken":"X","tokenId":"A"}`, `{"account":{"accountId":"one"},"accessToken":"X","tokenId":"A"}`, `{"account":{"accountId":"one"},"accessToken":"X","tokenId":"B"}`},
		"with a refresh token":    {`{"account":{"accountId":"one"},"accessToken":"A","refreshToken":"R"}`, named, `{"account":{"accountId":"one"},"accessToken":"B"}`},
		"of one account of a few": {`{"account":{"accountId":"one"},"accessToken":"A","refreshToken":"R"},{"account":{"accountId":"two"},"accessToken":"C","refreshToken":"R"}`, named, `{"account":{"accountId":"one"},"accessToken":"B"}`},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPartial(t)
			p.connects(p.published("coinbase", c.first))
			before := p.live(p.w, "u")
			require.Len(t, before, 1)
			told := p.LifecycleEvents("u")
			p.Clock.Advance(10 * time.Minute)
			p.connects(p.published("coinbase", c.again))
			after := p.live(p.w, "u")
			require.Len(t, after, 1)
			require.Equal(t, before[0].Version, after[0].Version)
			require.Equal(t, before[0].Access.ExpiresAt, after[0].Access.ExpiresAt)
			require.Equal(t, before[0].Refresh, after[0].Refresh)
			require.Equal(t, before[0].Accounts, ends(after[0].Accounts, before[0].Accounts))
			require.Equal(t, told, p.LifecycleEvents("u"))

			p.connects(p.published("coinbase", c.again, `"labels":{"k":"v"}`, `"connectedAt":"`+p.Clock.Now().Add(time.Minute).Format(time.RFC3339Nano)+`"`))
			after = p.live(p.w, "u")
			require.Len(t, after, 1)
			require.Equal(t, map[string]string{"k": "v"}, after[0].Labels)
			require.Equal(t, before[0].Access.ExpiresAt, after[0].Access.ExpiresAt)
			require.Equal(t, before[0].Refresh, after[0].Refresh)
			if c.changed == "" {
				return
			}
			p.Clock.Advance(10 * time.Minute)
			p.connects(p.published("coinbase", c.changed))
			given, _, _ := p.ask()
			require.Equal(t, "B", given["one"], "another token")
		})
	}
}

// TestMetadataGoesAlongWithEachRefresh, and is changed by connects that bring some.
func TestMetadataGoesAlongWithEachRefresh(t *testing.T) {
	const one = `{"account":{"accountId":"one"},"accessToken":"A","refreshToken":"R"}`
	p := newPartial(t)
	p.covers("one")
	p.connects(p.published("coinbase", one, `"metadata":{"region":"metadata-eu"}`))
	for i, c := range []struct{ entries, more, want string }{
		{"", "", `"metadata":{"region":"metadata-eu"}}`},
		{"", "", `"metadata":{"region":"metadata-eu"}}`}, // what a refresh has stored has it
		{one, `"labels":{"a":"b"}`, `"metadata":{"region":"metadata-eu"}}`},
		{one, `"metadata":{"region":"metadata-us"}`, `"metadata":{"region":"metadata-us"}}`},
		{`{"account":{"accountId":"one"},"accessToken":"B","refreshToken":"S"}`, `"metadata":null`, `"refreshToken":"S"}`},
	} {
		p.Clock.Advance(time.Second)
		if c.entries != "" {
			p.connects(p.published("coinbase", c.entries, c.more))
		}
		p.refresh(p.w, p.live(p.w, "u")[0])
		require.Contains(t, p.server.Asked, c.want, i)
	}
	for _, e := range p.Logs.All() {
		require.NotContains(t, fmt.Sprint(e.Message, e.ContextMap()), "metadata-")
	}
}

// ends returns accounts without the times at which they were given.
func ends(accounts, like []store.Account) []store.Account {
	all := []store.Account{}
	for i, a := range accounts {
		a.ConnectedAt = like[i].ConnectedAt
		all = append(all, a)
	}
	return all
}

// Once the access token has ended, the same again does not revive it, unless the publisher
// says that it was obtained since.
func TestAnEndedAccessTokenPublishedAgainStaysEnded(t *testing.T) {
	const one = `{"account":{"accountId":"one"},"accessToken":"A"}`
	for name, c := range map[string]struct {
		first []string
		again string
	}{
		"of an account":      {[]string{one}, one},
		"without an account": {[]string{`{"accessToken":"A"}`}, `{"accessToken":"A"}`},
		"of a grant that more accounts have joined": {[]string{
			`{"account":{"accountId":"one"},"accessToken":"A","refreshToken":"R"}`, `{"account":{"accountId":"two"},"accessToken":"B","refreshToken":"R"}`,
		}, one},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPartial(t)
			p.server.Set(meshsimtest.Response{Status: 503})
			for _, entry := range c.first {
				in := p.published("coinbase", entry)
				in.Payload.AccessToken.RefreshTokenExpiresInSeconds = 3600
				p.connects(in)
				p.WaitSent()
			}
			live := p.live(p.w, "u")
			require.Len(t, live, 1)
			g := live[0]
			for g.Due != nil {
				p.Clock.Advance(max(g.Due.At.Sub(p.Clock.Now()), 0))
				require.NoError(t, p.w.HandleDue(t.Context(), due(g)))
				g = p.Get(p.w, g.ID)
			}
			require.Equal(t, store.Expired, g.State)
			p.Clock.Advance(time.Minute)
			p.connects(p.published("coinbase", c.again))
			require.Equal(t, store.Expired, p.Get(p.w, g.ID).State)
			p.connects(p.published("coinbase", c.again, `"connectedAt":"`+p.Clock.Now().Format(time.RFC3339Nano)+`"`))
			given, _, _ := p.ask()
			require.Equal(t, []string{"A"}, slices.Collect(maps.Values(given)))
		})
	}
}

// Access tokens that connects of one login bring are served each to its own end, and the
// grant is refreshed for the one that ends first of those that accounts still have.
func TestAccessTokensOfSeveralConnectsHaveTheirOwnEnds(t *testing.T) {
	entry := func(account, access string) string {
		return fmt.Sprintf(`{"account":{"accountId":%q},"accessToken":%q,"refreshToken":"R"}`, account, access)
	}
	for _, laterFirst := range []bool{false, true} {
		t.Run(fmt.Sprint("the one that ends later comes first: ", laterFirst), func(t *testing.T) {
			p := newPartial(t)
			began := p.Clock.Now()
			short, long := p.published("coinbase", entry("one", "A")), p.published("coinbase", entry("two", "B"))
			short.Payload.AccessToken.ExpiresInSeconds = 600
			both := []events.Connected{short, long}
			if laterFirst {
				both = []events.Connected{long, short}
			}
			for _, in := range both {
				require.NoError(t, p.connector(p.w).Connect(t.Context(), in, began))
				began = began.Add(time.Millisecond)
			}
			g := p.live(p.w, "u")[0]
			require.Len(t, g.OlderAccess, 1)
			require.WithinDuration(t, began.Add(10*time.Minute), *g.Access.ExpiresAt, time.Second)
			require.WithinDuration(t, began.Add(time.Hour), *g.LastAccess().ExpiresAt, time.Second)
			require.NotNil(t, g.AccountsDue)
			p.server.Set(meshsimtest.Response{Status: 503})
			p.Clock.Advance(11 * time.Minute)
			given, ends, unavailable := p.ask()
			require.Equal(t, map[string]string{"two": "B"}, given)
			require.WithinDuration(t, began.Add(time.Hour), *ends["two"], time.Second)
			require.Equal(t, events.CodeBusy, unavailable["one"].Code)
		})
	}
	t.Run("an ended one is replaced", func(t *testing.T) {
		p := newPartial(t)
		p.server.Set(meshsimtest.Response{Status: 503})
		in := p.published("coinbase", entry("one", "A"))
		in.Payload.AccessToken.ExpiresInSeconds = 60
		p.connects(in)
		p.Clock.Advance(time.Hour)
		p.connects(p.published("coinbase", entry("one", "B")))
		g := p.live(p.w, "u")[0]
		require.Equal(t, p.Clock.Now().Add(time.Hour), g.Access.ExpiresAt.UTC())
		given, _, _ := p.ask()
		require.Equal(t, map[string]string{"one": "B"}, given)
	})
}

// A refresh token behind damage is the grant's also when its answer had to wait in the
// recovery stream.
func TestADamagedAnswerIsRescuedAsItWasRead(t *testing.T) {
	p := newPartial(t)
	p.connects(p.published("coinbase", `{"account":{"accountId":"one"},"accessToken":"A","refreshToken":"R0"}`))
	g := p.live(p.w, "u")[0]
	p.server.Set(meshsimtest.Content(`{"status":"succeeded","expiresInSeconds":3600,"brokerAccountTokens":[` +
		`{"x":NaN,"account":{"accountId":"one"},"accessToken":"A1","refreshToken":"R"},{"account":{"accountId":"two"},"accessToken":"A2","refreshToken":"R2"}]}`))
	p.Clock.Advance(g.Due.At.Sub(p.Clock.Now()))
	p.FailWrites(true)
	require.NoError(t, p.w.HandleDue(t.Context(), due(g)))
	p.FailWrites(false)
	entries := p.RecoveryEntries()
	require.Len(t, entries, 1)
	require.NoError(t, p.w.Recover(t.Context(), entries[0]))
	set, err := p.w.Tokens(t.Context(), p.Get(p.w, g.ID))
	require.NoError(t, err)
	require.Equal(t, "R", set.RefreshToken.Reveal())
}
