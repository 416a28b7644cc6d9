package worker_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/cli"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
)

func TestTokensOnTheCommandLine(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	o := &onCall{harness: h}
	h.worker()
	token := h.connectAged("u", fresh, spec("coinbase"), "a").Accounts[0].AccessToken
	h.event(events.TokenStored, "u")
	h.connectAged("u", over, spec("kraken"), "k", meshsim.Killed("no"))
	h.event(events.TokenExpired, "u")

	type view struct{ Broker, Account, ExpiresAt, Token, Code, Reason string }
	get := func(args ...string) (views []view) {
		t.Helper()
		require.NoError(t, json.Unmarshal([]byte(o.ok(append([]string{"token", "get", "u", "-o", "json"}, args...)...)), &views))
		return views
	}
	views := get()
	require.Len(t, views, 2)
	require.Equal(t, []string{"coinbase", "a", token.Masked()}, []string{views[0].Broker, views[0].Account, views[0].Token})
	require.NotEmpty(t, views[0].ExpiresAt)
	require.Equal(t, view{Broker: "kraken", Account: "k", Code: events.CodeExpired, Reason: string(events.ReasonRejected)}, views[1])
	table := o.ok("token", "get", "u")
	require.Contains(t, table, token.Masked())
	require.Contains(t, table, events.CodeExpired)
	require.NotContains(t, o.shown.String(), token.Reveal(), "nobody said --reveal")
	require.Equal(t, token.Reveal(), get("--reveal", "--broker", "CoinBase")[0].Token)
	require.Contains(t, o.ok("token", "get", "u", "--reveal"), token.Reveal())
	code, _, stderr := o.run("token", "get", "nobody", "-o", "json")
	require.Equal(t, cli.ExitRefused, code)
	require.Contains(t, stderr, events.CodeUnknownUser)
}
