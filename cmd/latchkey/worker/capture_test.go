package worker_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// cloudEvent wraps data as a structured CloudEvents message.
func cloudEvent(kind, at, data string) string {
	return fmt.Sprintf(`{"specversion":"1.0","id":"1","source":"/backend","type":%q,"time":%q,"datacontenttype":"application/json","data":%s}`, kind, at, data)
}

func TestAccountsAreGroupedByRefreshToken(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	h.publishConnected("shared", h.issue("coinbase", "a", "b", "c"), time.Time{})
	h.publishConnected("separate", h.issueSpec(meshsim.ConnectSpec{BrokerType: "coinbase", SeparateRefreshTokens: true}, "d", "e", "f"), time.Time{})
	h.publishConnected("none", h.issueSpec(meshsim.ConnectSpec{BrokerType: "coinbase", NoRefreshToken: true}, "g", "h"), time.Time{})
	h.handled()
	for user, want := range map[string]int{"shared": 1, "separate": 3, "none": 2} {
		h.nth(events.TokenStored, user, want)
		require.Len(t, h.grants(user), want, user)
		require.Len(t, h.eventsOf("", user), want, user)
	}
	for _, user := range []string{"shared", "separate"} {
		require.Len(t, h.get(h.refusing(events.TokenRequest{UserID: user})).AccessTokens, 3)
	}
	require.Len(t, h.requests("a"), 1)
	require.Len(t, h.requests("d"), 1)
	require.Len(t, h.get(events.TokenRequest{UserID: "none"}).AccessTokens, 2)
}

func TestLifetimesCountFromWhenTheTokensWereObtained(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	stated := time.Date(2021, 5, 6, 7, 8, 9, 123456789, time.UTC)
	enveloped := time.Date(2022, 1, 2, 3, 4, 5, 0, time.UTC)
	body := func(user string, at string) string {
		return fmt.Sprintf(`{"userId":%q,"payload":%s%s}`, user, h.issue("coinbase", user).Payload.Reveal(), at)
	}
	connectedAt := `,"connectedAt":"` + stated.Format(time.RFC3339Nano) + `"`
	h.publish(h.subjects.Connected(), body("stated", connectedAt))
	h.publish(h.subjects.Connected(), cloudEvent("com.example.integration.connected", enveloped.Format(time.RFC3339), body("enveloped", "")))
	h.publish(h.subjects.Connected(), cloudEvent(events.IntegrationConnected, enveloped.Format(time.RFC3339), body("both", connectedAt)))
	before := time.Now().Add(-time.Millisecond)
	h.publish(h.subjects.Connected(), body("neither", ""))
	after := time.Now().Add(time.Millisecond)

	end := func(user string) time.Time { return *h.event(events.TokenStored, user).Data.ExpiresAt }
	// The simulator states whole seconds, rounded down.
	require.WithinRange(t, end("stated"), stated.Add(life-time.Second), stated.Add(life))
	require.WithinRange(t, end("both"), stated.Add(life-time.Second), stated.Add(life))
	require.WithinRange(t, end("enveloped"), enveloped.Add(life-time.Second), enveloped.Add(life))
	require.WithinRange(t, end("neither"), before.Add(life-time.Second), after.Add(life))
}

func TestTokenThatIsOverIsRefreshedAtOnce(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	// A machine that is slow to make the first refresh would have reconciliation
	// announce that there is no token yet.
	h.worker("LATCHKEY_RECONCILE_SLACK=1h")
	h.connectAged("u", over, spec("coinbase"), "a")
	refreshed := h.event(events.TokenRefreshed, "u")
	require.True(t, refreshed.Data.ExpiresAt.After(time.Now()))
	require.Len(t, h.eventsOf("", "u"), 2)
}

// What is stored late is not overdue by as much: it could not be refreshed earlier.
func TestWhatIsStoredLateIsDueFromThenOn(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	before := store.Milli(time.Now())
	h.connectAged("over", over, spec("coinbase"), "a", meshsim.Hang())
	delayed := h.issueSpec(meshsim.ConnectSpec{BrokerType: "coinbase", Delayed: true}, "b")
	require.NoError(t, h.stack.Mesh.Script("b", meshsim.Hang()))
	h.publishConnected("delayed", delayed, time.Now().Add(-time.Hour))
	for _, user := range []string{"over", "delayed"} {
		h.event(events.TokenStored, user)
		require.False(t, h.grants(user)[0].Due.At.Before(before), user)
	}
}

func TestDelayedAuthLearnsItsAccounts(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	c := h.issueSpec(meshsim.ConnectSpec{BrokerType: "coinbase", BrokerName: "Coinbase", Delayed: true, LogoBytes: 2000}, "a", "b")
	h.publishConnected("u", c, time.Time{})
	stored := h.event(events.TokenStored, "u")
	require.Empty(t, stored.Data.Accounts)
	refreshed := h.event(events.TokenRefreshed, "u")
	require.Equal(t, stored.Data.GrantID, refreshed.Data.GrantID)
	require.Equal(t, []events.Account{{AccountID: "a", AccountName: "Account a"}, {AccountID: "b", AccountName: "Account b"}}, refreshed.Data.Accounts)
	reply := h.get(events.TokenRequest{UserID: "u"})
	require.Len(t, reply.AccessTokens, 2)
	require.Equal(t, "Coinbase", reply.AccessTokens[0].BrokerName)
	require.Len(t, h.get(events.TokenRequest{UserID: "u", AccountID: "b"}).AccessTokens, 1)
}

func TestDelayedAuthIsAskedForBeforeItsFirstRefresh(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	c := h.issueSpec(meshsim.ConnectSpec{BrokerType: "coinbase", Delayed: true}, "a")
	require.NoError(t, h.stack.Mesh.Script("a", meshsim.Delay(time.Second, time.Second)))
	h.publishConnected("u", c, time.Time{})
	h.event(events.TokenStored, "u")
	require.Len(t, h.get(events.TokenRequest{UserID: "u"}).AccessTokens, 1)
	require.Len(t, h.requests("a"), 1)
}

func TestUnknownFieldsAndBrokersAreTaken(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	c := h.issue("brand-new_broker.2031", "a")
	payload := strings.Replace(c.Payload.Reveal(), `{`, `{"future":{"deep":[1,{"x":null}]},"Payload":7,`, 1)
	require.True(t, json.Valid([]byte(payload)))
	h.publish(h.subjects.Connected(), fmt.Sprintf(`{"userId":"u","payload":%s,"tenant":"t","tags":[]}`, payload))
	require.Equal(t, "brand-new_broker.2031", h.event(events.TokenStored, "u").Data.BrokerType)
	h.get(h.refusing(events.TokenRequest{UserID: "u"}))
	require.Len(t, h.requests("a"), 1)
}

func TestLogosAreNotStored(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	if h.stack.MongoDB == nil || h.stack.NATS == nil {
		t.Skip("looks into the files of embedded engines")
	}
	w := h.worker()
	c := h.issueSpec(meshsim.ConnectSpec{BrokerType: "coinbase", BrokerName: "Name to be found", LogoBytes: 40 << 10}, "a")
	var payload struct {
		AccessToken struct {
			BrokerBrandInfo struct{ BrokerLogo string } `json:"brokerBrandInfo"`
		} `json:"accessToken"`
	}
	require.NoError(t, json.Unmarshal([]byte(c.Payload.Reveal()), &payload))
	logo := payload.AccessToken.BrokerBrandInfo.BrokerLogo
	require.Greater(t, len(logo), 40000)
	h.publishConnected("u", c, time.Time{})
	h.event(events.TokenStored, "u")
	h.get(h.refusing(events.TokenRequest{UserID: "u"}))
	w.stop()
	h.stack.Stop()
	files := h.files("mongodb")
	require.Contains(t, files, "Name to be found")
	require.NotContains(t, files, logo[:64])
	require.NotContains(t, files, logo[len(logo)/2:len(logo)/2+64])
	require.Less(t, len(files), 1<<20)
}

func TestHostileUserIDs(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	for i, user := range []string{
		".", "..", "a.b.c", "*", ">", "a.>", "with space", "%", "%2E", "ünïcödé", "用户", "💥", `q"uo\te`, "$SRV.PING", "$where",
		"../../etc/passwd", "<script>", "{{7*7}}", "' OR 1=1 --", strings.Repeat("x", events.MaxUserIDChars), "-", "_", "null", "0",
	} {
		account := fmt.Sprint("account-", i)
		h.publishConnected(user, h.issue("coinbase", account), time.Time{})
		stored := h.event(events.TokenStored, user)
		require.Equal(t, user, stored.Data.UserID)
		reply := h.get(events.TokenRequest{UserID: user})
		require.Len(t, reply.AccessTokens, 1, user)
		require.Equal(t, account, reply.AccessTokens[0].AccountID)
		h.disconnect(user, "", "")
		h.event(events.TokenRevoked, user)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.seen {
		token := strings.TrimPrefix(e.Subject, strings.TrimSuffix(h.subjects.LifecycleAll(e.Kind), "*"))
		require.Regexp(t, `^[A-Za-z0-9_%-]+$`, token)
		user, err := events.DecodeUserID(token)
		require.NoError(t, err)
		require.Equal(t, e.Data.UserID, user)
	}
}
