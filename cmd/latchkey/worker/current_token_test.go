package worker_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
)

func seconds(d time.Duration) *int64 { return new(int64(d / time.Second)) }

func TestReplyCanBeHandedToTheLinkSDK(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	issued := h.issueSpec(meshsim.ConnectSpec{BrokerType: "coinbase", BrokerName: "Coinbase"}, "a", "b")
	h.publishConnected("u", issued, time.Time{})
	stored := h.event(events.TokenStored, "u")
	_, code, _ := h.ask(events.TokenRequest{UserID: "u"})
	require.Empty(t, code)

	msg, err := h.nc.Request(h.subjects.TokenGet("u"), []byte(`{"userId":"u"}`), patience)
	require.NoError(t, err)
	var reply struct {
		AccessTokens []map[string]any `json:"accessTokens"`
		Expiries     []map[string]any `json:"expiries"`
	}
	require.NoError(t, json.Unmarshal(msg.Data, &reply))
	require.Equal(t, []map[string]any{
		{"accountId": "a", "accountName": "Account a", "brokerType": "coinbase", "brokerName": "Coinbase", "accessToken": issued.Accounts[0].AccessToken.Reveal()},
		{"accountId": "b", "accountName": "Account b", "brokerType": "coinbase", "brokerName": "Coinbase", "accessToken": issued.Accounts[1].AccessToken.Reveal()},
	}, reply.AccessTokens)
	require.Len(t, reply.Expiries, 2)
	require.Equal(t, stored.Data.GrantID, reply.Expiries[0]["grantId"])
	require.Equal(t, stored.Data.ExpiresAt.Format(time.RFC3339Nano), reply.Expiries[0]["expiresAt"])
}

func TestAReplyThatNATSDoesNotTakeIsRefused(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	const tokens, size = 50, 11_000 // of two grants they are more than a megabyte, of one they are not
	for n, broker := range []string{"coinbase", "kraken"} {
		var accounts []string
		for i := range tokens {
			accounts = append(accounts, fmt.Sprint(broker, i))
		}
		c := h.issue(broker, accounts...)
		payload := c.Payload.Reveal()
		for _, account := range c.Accounts {
			token := account.AccessToken.Reveal()
			payload = strings.ReplaceAll(payload, token, token+strings.Repeat("x", size))
		}
		c.Payload = secret.New(payload)
		h.publishConnected("u", c, time.Time{})
		h.nth(events.TokenStored, "u", n+1)
	}
	_, code, body := h.ask(events.TokenRequest{UserID: "u"})
	require.Equal(t, events.CodeBadRequest, code)
	require.Contains(t, string(body), "narrow the request")
	require.Len(t, h.get(events.TokenRequest{UserID: "u", BrokerType: "kraken"}).AccessTokens, tokens)
}

func TestRequestCanBeNarrowed(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	h.publishConnected("u", h.issue("coinbase", "a", "b"), time.Time{})
	h.publishConnected("u", h.issue("kraken", "c"), time.Time{})
	h.nth(events.TokenStored, "u", 2)
	for _, c := range []struct {
		request events.TokenRequest
		want    []string
	}{
		{events.TokenRequest{}, []string{"a", "b", "c"}},
		{events.TokenRequest{BrokerType: "coinbase"}, []string{"a", "b"}},
		{events.TokenRequest{BrokerType: "kraken"}, []string{"c"}},
		{events.TokenRequest{AccountID: "b"}, []string{"b"}},
		{events.TokenRequest{BrokerType: "coinbase", AccountID: "a"}, []string{"a"}},
	} {
		c.request.UserID = "u"
		var got []string
		for _, token := range h.get(c.request).AccessTokens {
			got = append(got, token.AccountID)
		}
		require.ElementsMatch(t, c.want, got)
	}
	for _, r := range []events.TokenRequest{{UserID: "u", BrokerType: "other"}, {UserID: "u", BrokerType: "kraken", AccountID: "a"}, {UserID: "v"}} {
		_, code, _ := h.ask(r)
		require.Equal(t, events.CodeUnknownUser, code)
	}
}

func TestTooLittleLifeIsRefreshedFirst(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	c := h.connectAged("u", 40*time.Minute, spec("coinbase"), "a")
	h.event(events.TokenStored, "u")
	old := c.Accounts[0].AccessToken.Reveal()
	require.Equal(t, old, h.get(events.TokenRequest{UserID: "u"}).AccessTokens[0].AccessToken.Reveal())
	require.Equal(t, old, h.get(events.TokenRequest{UserID: "u", MinTTLSeconds: seconds(5 * time.Minute)}).AccessTokens[0].AccessToken.Reveal())
	require.Empty(t, h.requests("a"))
	reply := h.get(events.TokenRequest{UserID: "u", MinTTLSeconds: seconds(30 * time.Minute)})
	require.NotEqual(t, old, reply.AccessTokens[0].AccessToken.Reveal())
	require.True(t, reply.Expiries[0].ExpiresAt.After(time.Now().Add(30*time.Minute)))
	require.Len(t, h.requests("a"), 1)
	h.event(events.TokenRefreshed, "u")
	h.get(events.TokenRequest{UserID: "u", MinTTLSeconds: seconds(30 * time.Minute)})
	require.Len(t, h.requests("a"), 1)
}

func TestATokenThatWasRefusedIsReported(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	w := h.worker("LATCHKEY_TOKENS_REFUSED_PAUSE=1h")
	h.connectAged("u", fresh, spec("coinbase"), "a")
	h.event(events.TokenStored, "u")
	first := h.get(events.TokenRequest{UserID: "u"})
	report := fmt.Sprintf(`{"userId":"u","refused":[{"grantId":%q,"version":%d},{"grantId":"another","version":1}]}`, first.Expiries[0].GrantID, first.Expiries[0].Version)
	var outcomes []string
	for range 2 {
		msg, err := h.nc.Request(h.subjects.TokenGet("u"), []byte(report), patience)
		require.NoError(t, err)
		reply, err := events.DecodeTokenReply(msg.Data)
		require.NoError(t, err)
		require.EqualValues(t, 2, reply.Expiries[0].Version)
		require.NotEqual(t, first.AccessTokens[0].AccessToken.Reveal(), reply.AccessTokens[0].AccessToken.Reveal())
		outcomes = append(outcomes, reply.Refused[0].Outcome, reply.Refused[1].Outcome)
	}
	require.Equal(t, []string{events.RefusedRefreshed, events.RefusedUnknown, events.RefusedReplaced, events.RefusedUnknown}, outcomes)
	require.Equal(t, events.RefusedTooSoon, h.get(h.refusing(events.TokenRequest{UserID: "u"})).Refused[0].Outcome)
	require.Len(t, h.requests("a"), 1)
	require.Equal(t, 3.0, w.counter("latchkey_access_tokens_refused_total", "broker", "coinbase"))
	require.Equal(t, 2.0, w.counter("latchkey_access_tokens_refused_total", "broker", "none"))
}

func TestManyCallersCostOneRefresh(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	h.worker()
	// Callers come while the refresh is under way.
	h.connectAged("u", 40*time.Minute, spec("coinbase"), "a", meshsim.Delay(time.Second, time.Second))
	h.event(events.TokenStored, "u")
	var mu sync.Mutex
	tokens := map[string]int{}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			reply, code, _ := h.ask(events.TokenRequest{UserID: "u", MinTTLSeconds: seconds(30 * time.Minute)})
			mu.Lock()
			defer mu.Unlock()
			tokens[code]++
			for _, token := range reply.AccessTokens {
				tokens[token.AccessToken.Reveal()]++
			}
		})
	}
	wg.Wait()
	require.Len(t, tokens, 2, "all got the same token")
	require.Equal(t, 50, tokens[""])
	require.Len(t, h.requests("a"), 1)
	require.Len(t, h.eventsOf(events.TokenRefreshed, "u"), 1)
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker("LATCHKEY_TOKENS_TIMEOUT=1s", "LATCHKEY_MESH_TIMEOUT=5s")
	raw := func(subject, body string) (code, number, text string) {
		msg, err := h.nc.Request(subject, []byte(body), patience)
		require.NoError(t, err)
		return msg.Header.Get("Nats-Service-Error"), msg.Header.Get("Nats-Service-Error-Code"), string(msg.Data)
	}
	for _, c := range []struct{ subject, body, code, number string }{
		{"u", `{"userId":"v"}`, events.CodeForbidden, "403"},
		{"u", `{"userId":"u"`, events.CodeBadRequest, "400"},
		{"u", ``, events.CodeBadRequest, "400"},
		{"u", `{}`, events.CodeBadRequest, "400"},
		{"u", `{"userId":7}`, events.CodeBadRequest, "400"},
		{"u", `{"userId":"u","minTTLSeconds":-1}`, events.CodeBadRequest, "400"},
		{"u", `{"userId":"u","minTTLSeconds":1e30}`, events.CodeBadRequest, "400"},
		{"%2e", `{"userId":"."}`, events.CodeBadRequest, "400"},
		{"nobody", `{"userId":"nobody"}`, events.CodeUnknownUser, "404"},
	} {
		code, number, text := raw(strings.TrimSuffix(h.subjects.TokenGetAll(), "*")+c.subject, c.body)
		require.Equal(t, c.code, code, c.body)
		require.Equal(t, c.number, number)
		require.Contains(t, text, `"code":"`+c.code+`"`)
	}

	h.connectAged("dead", over, spec("b1"), "dead", meshsim.Killed("no"))
	h.event(events.TokenExpired, "dead")
	_, code, _ := h.ask(events.TokenRequest{UserID: "dead"})
	require.Equal(t, events.CodeExpired, code)

	// Neither token is stated to end: only its user can help.
	h.connectAged("mfa", life-2*time.Second, spec("b2"), "mfa", meshsim.MFARequired())
	h.event(events.TokenExpiring, "mfa")
	h.eventually(func() bool {
		_, code, body := h.ask(events.TokenRequest{UserID: "mfa"})
		return code != "" && strings.Contains(string(body), string(events.ReasonMFARequired))
	}, "its token is over")

	h.connectAged("slow", over, spec("b3"), "slow", meshsim.Delay(3*time.Second, 3*time.Second))
	h.eventually(func() bool { return len(h.underWay("slow")) > 0 }, "no refresh")
	_, code, _ = h.ask(events.TokenRequest{UserID: "slow"})
	require.Equal(t, events.CodeBusy, code)
	h.event(events.TokenRefreshed, "slow")
}

func TestGoodTokenIsServedWhileRefreshesFail(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	_, err := h.stack.Mesh.Inject(meshsim.Fault{Action: meshsim.MappedEnvelope("locked")})
	require.NoError(t, err)
	c := h.connectAged("u", due, spec("coinbase"), "a")
	h.eventually(func() bool { return len(h.underWay("a")) >= 2 }, "no refresh")
	for _, ttl := range []time.Duration{0, 30 * time.Minute} {
		reply := h.get(events.TokenRequest{UserID: "u", MinTTLSeconds: seconds(ttl)})
		require.Equal(t, c.Accounts[0].AccessToken.Reveal(), reply.AccessTokens[0].AccessToken.Reveal())
	}
	require.Empty(t, h.eventsOf(events.TokenExpiring, "u"))
}

func TestPartOfTheAccountsCanBeUnavailable(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	h.connectAged("u", due, spec("coinbase"), "good")
	h.connectAged("u", over, spec("kraken"), "bad", meshsim.Killed("no"))
	expired := h.event(events.TokenExpired, "u")
	reply := h.get(events.TokenRequest{UserID: "u"})
	require.Len(t, reply.AccessTokens, 1)
	require.Equal(t, "good", reply.AccessTokens[0].AccountID)
	require.Equal(t, []events.UnavailableAccount{{
		AccountID: "bad", BrokerType: "kraken", GrantID: expired.Data.GrantID, Code: events.CodeExpired, Reason: events.ReasonRejected,
	}}, reply.Unavailable)
}

func TestNobodyGetsAnothersTokens(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	h.worker()
	// Look-alike ids, with the same account ids at the same broker.
	users := []string{"a", "A", "a.b", "a%2Eb", "a b", "a*", "a>", "ä", "a\u0308", "b"}
	own := map[string]string{}
	for _, user := range users {
		c := h.connectAged(user, fresh, spec("coinbase"), "same")
		own[c.Accounts[0].AccessToken.Reveal()] = user
	}
	for _, user := range users {
		h.event(events.TokenStored, user)
	}
	var wg sync.WaitGroup
	for range 5 {
		for _, user := range users {
			wg.Go(func() {
				reply, code, _ := h.ask(events.TokenRequest{UserID: user})
				if code != "" || len(reply.AccessTokens) != 1 || own[reply.AccessTokens[0].AccessToken.Reveal()] != user {
					t.Errorf("user %q got %q and %d tokens of %v", user, code, len(reply.AccessTokens), reply)
				}
			})
		}
	}
	wg.Wait()
}

func TestServiceIsDiscovered(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	w := h.worker()
	h.ask(events.TokenRequest{UserID: "nobody"})
	name := strings.TrimPrefix(h.subjects.Prefix+"-latchkey-tokens", "-")
	discover := func(verb string, into any) {
		msg, err := h.nc.Request("$SRV."+verb+"."+name, nil, patience)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(msg.Data, into))
	}
	var ping micro.Ping
	discover("PING", &ping)
	require.Equal(t, name, ping.Name)
	var info micro.Info
	discover("INFO", &info)
	require.Len(t, info.Endpoints, 3)
	require.Equal(t, h.subjects.TokenGetAll(), info.Endpoints[0].Subject)
	require.Equal(t, h.subjects.TokenKeys(), info.Endpoints[1].Subject)
	require.Equal(t, h.subjects.TokenMFAAll(), info.Endpoints[2].Subject)
	require.NotEmpty(t, info.Metadata["worker"])
	h.eventually(func() bool {
		var stats micro.Stats
		discover("STATS", &stats)
		return len(stats.Endpoints) == 3 && stats.Endpoints[0].NumRequests == 1 &&
			stats.Endpoints[0].NumErrors == 1 && stats.Endpoints[0].LastError == "404:unknown_user"
	}, "the refusal is not counted")
	require.Equal(t, []string{events.CodeUnknownUser}, w.values("latchkey_token_request_duration_seconds", "code"))
}

func TestNoRequestIsLostWhileAWorkerStops(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	leaving := h.worker("LATCHKEY_TOKENS_CONCURRENCY=1") // so that requests queue
	h.connectAged("u", fresh, spec("coinbase"), "a")
	h.event(events.TokenStored, "u")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, code, body := h.ask(events.TokenRequest{UserID: "u"}); code != "" {
					t.Errorf("refused with %s: %s", code, body)
					return
				}
			}
		})
	}
	h.eventually(func() bool { return leaving.metric("latchkey_token_requests_total") > 20 }, "no requests")
	leaving.stop()
	close(stop)
	wg.Wait()
}
