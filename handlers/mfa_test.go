package handlers_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim/meshsimtest"
	"github.com/latchkey/latchkey/refresher/refreshertest"
	"github.com/latchkey/latchkey/store"
)

// TestTokensThatComeWithTheDemandForACodeAreKept, whatever becomes of the grant
// meanwhile, and where the database is away.
func TestTokensThatComeWithTheDemandForACodeAreKept(t *testing.T) {
	r := newRig(t)
	server := meshsimtest.NewServer(t)
	r.MeshURL = server.URL
	w := r.Worker("a")
	meanwhile := func(*store.Grant) {}
	var g *store.Grant
	server.During = func() { meanwhile(r.Get(w, g.ID)) }
	change := func(change func(*store.Grant)) func(*store.Grant) {
		return func(g *store.Grant) {
			next := g.Clone()
			change(next)
			require.NoError(t, w.Store.Save(t.Context(), next))
		}
	}
	relabel := change(func(g *store.Grant) { g.Labels = map[string]string{"is": "new"} })
	n := 0
	for brought, answer := range map[string]string{
		"both":            `"accessToken":"interim","refreshToken":"next"`,
		"an access token": `"accessToken":"interim"`, "a refresh token": `"refreshToken":"next"`,
	} {
		for name, meanwhileIn := range map[string]func(*store.Grant){
			"nothing happens": func(*store.Grant) {},
			"it changes":      relabel,
			"it is connected anew": change(func(g *store.Grant) {
				with, err := w.Fingerprints.Sealer(t.Context(), g.UserID)
				require.NoError(t, err)
				g.Lease, g.Applied, g.Chain, g.Version = nil, g.Epoch, nil, g.Version+1
				with.SealTo(g, store.TokenSet{RefreshToken: text("of another login"), Origin: store.OriginOf(text("of another login"))}, r.Clock.Now(), true)
			}),
			"the database is away": func(*store.Grant) { r.FailWrites(true) },
		} {
			t.Run(brought+", "+name, func(t *testing.T) {
				n++
				server.Set(meshsimtest.Content(`{"status":"mfaRequired",` + answer + `}`))
				g = r.Connect(w, meshsim.ConnectSpec{BrokerType: fmt.Sprint("broker", n)}, func(g *store.Grant) { g.UserID = fmt.Sprint("user", n) })
				meanwhile = meanwhileIn
				require.NoError(t, w.HandleDue(t.Context(), due(g)))
				r.FailWrites(false)
				for _, entry := range r.Messages(r.Subjects.RecoveryStream(), r.Subjects.Recovery(g.ID)) {
					require.NoError(t, w.Recover(t.Context(), entry.Data))
				}
				got := r.Get(w, g.ID)
				set, err := w.Tokens(t.Context(), got)
				require.NoError(t, err)
				kept := refreshertest.TokensOf(set)
				if strings.Contains(answer, "interim") {
					require.Contains(t, kept, text("interim"))
				}
				if strings.Contains(answer, "next") {
					require.Contains(t, kept, text("next"))
				}
				switch name {
				case "nothing happens", "it changes":
					require.Equal(t, store.MustAct, got.State)
					require.Equal(t, strings.Contains(answer, "interim"), got.MFA != nil)
					require.Equal(t, name == "it changes", len(got.Labels) > 0)
				case "it is connected anew":
					require.Equal(t, store.Active, got.State)
					require.Equal(t, text("of another login"), set.RefreshToken)
					if strings.Contains(answer, "next") {
						require.Equal(t, []string{`{"refreshTokens":["next"]}`}, r.leftovers(w, got))
					}
				case "the database is away":
					if strings.Contains(answer, "next") {
						require.Equal(t, text("next"), set.RefreshToken, "which is presented now")
					}
				}
			})
		}
	}
}

// The refresh token beside a demand for a code is the grant's if its entry is one of the
// grant's, or of none; another's becomes a dead letter.
func TestWhoseTheRefreshTokenBesideADemandForACodeIs(t *testing.T) {
	r := newRig(t)
	server := meshsimtest.NewServer(t)
	r.MeshURL = server.URL
	w := r.Worker("a")
	const other = `{"account":{"accountId":"other"},"accessToken":"X","refreshToken":"R-other"}`
	for broker, c := range map[string]struct {
		entries, want string
		letters       int
	}{
		"the-grants-behind-anothers": {other + `,{"account":{"accountId":"ACCOUNT"},"accessToken":"I","refreshToken":"R"}`, "R", 1},
		"a-nameless-behind-anothers": {other + `,{"accessToken":"I","refreshToken":"R"}`, "R", 1},
		"anothers-alone":             {other + `,{"account":{"accountId":"ACCOUNT"},"accessToken":"I"}`, "", 1},
		"the-grants":                 {`{"account":{"accountId":"ACCOUNT"},"accessToken":"I","refreshToken":"R"}`, "R", 0},
	} {
		g := r.Connect(w, meshsim.ConnectSpec{BrokerType: broker}, func(g *store.Grant) { g.UserID = broker })
		before, err := w.Tokens(t.Context(), g)
		require.NoError(t, err)
		entries := strings.ReplaceAll(c.entries, "ACCOUNT", g.Accounts[0].ID)
		server.Set(meshsimtest.Response{Status: 200, Body: `{"status":"ok","content":{"status":"mfaRequired","brokerAccountTokens":[` + entries + `]}}`})
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		g = r.Get(w, g.ID)
		require.Equal(t, store.MustAct, g.State, broker)
		set, err := w.Tokens(t.Context(), g)
		require.NoError(t, err)
		want := c.want
		if want == "" {
			want = before.RefreshToken.Reveal()
		}
		require.Equal(t, want, set.RefreshToken.Reveal(), broker)
		letters := r.leftovers(w, g)
		require.Len(t, letters, c.letters, broker)
		if c.letters > 0 {
			require.Contains(t, letters[0], "R-other")
		}
	}
}
