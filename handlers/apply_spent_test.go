package handlers_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim/meshsimtest"
)

// A refresh token that a refresh has replaced comes back in a later answer, in whatever
// place. It is not the grant's again, hides no other, and splits no account off.
func TestASpentRefreshTokenDoesNotComeBack(t *testing.T) {
	entry := func(id string, n int, refresh string) string {
		return fmt.Sprintf(`{"account":{"accountId":%q},"accessToken":"%s-%d","refreshToken":%q}`, id, id, n, refresh)
	}
	for name, c := range map[string]struct {
		answer func(spent string) string
		want   string
	}{
		"of the first account":  {func(spent string) string { return `[` + entry("one", 2, spent) + `,` + entry("two", 2, "R2") + `]` }, "R2"},
		"of the second account": {func(spent string) string { return `[` + entry("one", 2, "R2") + `,` + entry("two", 2, spent) + `]` }, "R2"},
		"of both":               {func(spent string) string { return `[` + entry("one", 2, spent) + `,` + entry("two", 2, spent) + `]` }, "R1"},
		"the deprecated one": {func(spent string) string {
			return `[` + entry("one", 2, "") + `,` + entry("two", 2, "") + `],"refreshToken":"` + spent + `"`
		}, "R1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			server := meshsimtest.NewServer(t)
			r.MeshURL = server.URL
			w := r.Worker("a")
			login := r.login("one", "two")
			require.NoError(t, r.connector(w).Connect(t.Context(), wrapped("u", login, 0, 1), r.Clock.Now()))
			g := r.live(w, "u")[0]
			for _, list := range []string{`[` + entry("one", 1, "R1") + `,` + entry("two", 1, "R1") + `]`, c.answer(login.Accounts[0].RefreshToken.Reveal())} {
				r.Clock.Advance(time.Second)
				server.Set(meshsimtest.Content(`{"status":"succeeded","expiresInSeconds":3600,"brokerAccountTokens":` + list + `}`))
				g = r.refresh(w, g)
			}
			set, err := w.Tokens(t.Context(), g)
			require.NoError(t, err)
			require.Equal(t, c.want, set.RefreshToken.Reveal())
			given := map[string]string{}
			for _, account := range set.Accounts {
				given[account.AccountID] = account.AccessToken.Reveal()
			}
			require.Equal(t, map[string]string{"one": "one-2", "two": "two-2"}, given)
			require.False(t, g.HasSeparateRefreshTokens)
		})
	}
}
