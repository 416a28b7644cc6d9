package worker_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
)

// A broker that does not answer holds up the requests for its own tokens only.
func TestRequestsForOneBrokerDoNotWaitForAnother(t *testing.T) {
	t.Parallel()
	h := start(t, map[string]meshsim.Institution{"hanging": {AccessLifetime: life, RefreshLifetime: 24 * life, Grace: time.Hour}})
	w := h.worker("LATCHKEY_TOKENS_CONCURRENCY=4")
	for i := range 20 {
		account := fmt.Sprint("sick-", i)
		h.connectAged(account, 2*life, spec("hanging"), account, meshsim.Hang(), meshsim.Hang())
		h.event(events.TokenStored, account)
		h.connectAged(fmt.Sprint("well-", i), fresh, spec("coinbase"), fmt.Sprint("well-", i))
		h.event(events.TokenStored, fmt.Sprint("well-", i))
	}
	var waiting sync.WaitGroup
	var asked, answered atomic.Int32
	for i := range 200 {
		waiting.Go(func() {
			asked.Add(1)
			_, code, body := h.ask(events.TokenRequest{UserID: fmt.Sprint("sick-", i%20)})
			if answered.Add(1); code != events.CodeBusy || !strings.Contains(string(body), `"retryAfterSeconds":`) {
				t.Errorf("%s: %s", code, body)
			}
		})
	}
	// Those that find no place are told so; the others wait.
	h.eventually(func() bool {
		return asked.Load() == 200 && w.counter("latchkey_token_requests_total", "code", events.CodeBusy) >= 150
	}, "more requests wait than there are places for")
	for range 3 { // read for the first time, and kept
		for i := range 20 {
			require.Len(t, h.get(events.TokenRequest{UserID: fmt.Sprint("well-", i)}).AccessTokens, 1)
		}
	}
	require.Less(t, answered.Load(), int32(200), "none had to wait for the sick broker to be given up")
	waiting.Wait()
}

func TestAValidTokenIsGivenWhileItsRefreshHangs(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	w := h.worker("LATCHKEY_TOKENS_TIMEOUT=30s")
	c := h.connectAged("u", 40*time.Minute, spec("coinbase"), "a", meshsim.Hang())
	h.event(events.TokenStored, "u")
	var all sync.WaitGroup
	for range 514 {
		all.Go(func() {
			reply, code, body := h.ask(events.TokenRequest{UserID: "u", MinTTLSeconds: seconds(30 * time.Minute)})
			if code != "" || reply.AccessTokens[0].AccessToken.Reveal() != c.Accounts[0].AccessToken.Reveal() {
				t.Errorf("%s: %s", code, body)
			}
		})
	}
	all.Wait()
	require.NotContains(t, h.logs.String(), "refresh failed", "the refresh has not been given up yet")
	h.eventually(func() bool { return w.counter("latchkey_token_requests_total", "code", "ok") == 514 }, "each is counted once it is answered")
}

// One broker that does not answer holds up the tokens of another no longer where one
// user has both.
func TestAUsersTokenIsGivenWhileAnotherBrokersRefreshHangs(t *testing.T) {
	t.Parallel()
	h := start(t, map[string]meshsim.Institution{"hanging": {AccessLifetime: life, RefreshLifetime: 24 * life, Grace: time.Hour}})
	h.worker("LATCHKEY_TOKENS_TIMEOUT=30s")
	h.connectAged("u", fresh, spec("coinbase"), "well")
	h.connectAged("u", 2*life, spec("hanging"), "sick", meshsim.Hang())
	h.nth(events.TokenStored, "u", 2)
	for range 20 { // of which the first waits a moment
		reply := h.get(events.TokenRequest{UserID: "u"})
		require.Len(t, reply.AccessTokens, 1)
		require.Equal(t, "well", reply.AccessTokens[0].AccountID)
		require.Equal(t, events.CodeBusy, reply.Unavailable[0].Code)
		require.Positive(t, reply.Unavailable[0].RetryAfterSeconds)
	}
	require.NotContains(t, h.logs.String(), "refresh failed", "the refresh has not been given up yet")
}

func TestBehindAnOpenBreakerTheAnswerComesAtOnce(t *testing.T) {
	t.Parallel()
	h := start(t, map[string]meshsim.Institution{"sick": {AccessLifetime: time.Hour, RefreshLifetime: 24 * time.Hour}})
	w := h.worker("LATCHKEY_LIMITS_BREAKER_FAILURES=1", "LATCHKEY_LIMITS_BREAKER_OPEN=1h", "LATCHKEY_TOKENS_TIMEOUT=1h")
	h.connectAged("valid", 30*time.Minute, spec("sick"), "valid")
	h.event(events.TokenStored, "valid")
	h.connectAged("ended", 2*time.Hour, spec("sick"), "ended", meshsim.MappedEnvelope("serverFailure"))
	h.event(events.TokenStored, "ended")
	h.eventually(func() bool { return w.metric("latchkey_broker_breaker_open") > 0 }, "the breaker does not open")
	h.connectAged("other", 2*time.Hour, spec("sick"), "other")
	h.event(events.TokenStored, "other")

	// By the timeout they could wait for an hour.
	for _, user := range []string{"other", "ended"} {
		_, code, body := h.ask(events.TokenRequest{UserID: user})
		require.Equal(t, events.CodeBusy, code)
		var r struct {
			RetryAfterSeconds int64
			Unavailable       []events.UnavailableAccount
		}
		require.NoError(t, json.Unmarshal(body, &r))
		require.Greater(t, r.RetryAfterSeconds, int64(60))
		require.Equal(t, r.RetryAfterSeconds, r.Unavailable[0].RetryAfterSeconds)
	}
	require.Len(t, h.get(events.TokenRequest{UserID: "valid", MinTTLSeconds: seconds(50 * time.Minute)}).AccessTokens, 1)
	require.Empty(t, h.requests("valid"))
}
