package worker_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

// Only events tell the workers here that what they keep is out of date.
func TestWhatWorkersKeepFollowsEveryChange(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	settings := []string{"LATCHKEY_TOKENS_CACHE_AGE=1h", "LATCHKEY_TOKENS_MIN_TTL=0s"}
	h.worker(settings...)
	h.worker(settings...)
	// all waits until every answer, from whatever worker, is the one wanted.
	all := func(user, want, what string) {
		t.Helper()
		h.eventually(func() bool {
			for range 30 {
				reply, code, _ := h.ask(events.TokenRequest{UserID: user})
				if code == "" {
					code = reply.AccessTokens[0].AccessToken.Reveal()
				}
				if code != want {
					return false
				}
			}
			return true
		}, what)
	}
	first := h.connectAged("u", fresh, spec("coinbase"), "a").Accounts[0].AccessToken.Reveal()
	h.event(events.TokenStored, "u")
	all("u", first, "what was connected")

	second := h.get(h.refusing(events.TokenRequest{UserID: "u"})).AccessTokens[0].AccessToken.Reveal()
	require.NotEqual(t, first, second)
	all("u", second, "what was refreshed")

	h.disconnect("u", "", "")
	h.event(events.TokenRevoked, "u")
	all("u", events.CodeUnknownUser, "what was erased")

	third := h.connectAged("u", -time.Second, spec("coinbase"), "a").Accounts[0].AccessToken.Reveal()
	h.nth(events.TokenStored, "u", 2)
	all("u", third, "what was connected anew")
}
