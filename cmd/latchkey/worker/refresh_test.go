package worker_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
)

func spec(broker string) meshsim.ConnectSpec { return meshsim.ConnectSpec{BrokerType: broker} }

func TestPassingFailuresAreTriedAgain(t *testing.T) {
	t.Parallel()
	grace := meshsim.Institution{AccessLifetime: life, RefreshLifetime: 24 * life, Grace: time.Hour}
	h := start(t, map[string]meshsim.Institution{"graceful": grace})
	h.worker("LATCHKEY_MESH_TIMEOUT=1s")
	cases := map[string]struct {
		broker string
		action meshsim.Action
	}{
		"conflict":               {"b1", meshsim.MappedEnvelope("conflict")},
		"locked":                 {"b2", meshsim.MappedEnvelope("locked")},
		"serverFailure":          {"b3", meshsim.MappedEnvelope("serverFailure")},
		"serverFailure in a 200": {"b4", meshsim.Envelope("serverFailure")},
		"500":                    {"b5", meshsim.HTTPStatus(500)},
		"502":                    {"b6", meshsim.HTTPStatus(502)},
		"503":                    {"b7", meshsim.HTTPStatus(503).WithRetryAfter(time.Second)},
		"reset":                  {"b8", meshsim.Reset()},
		"garbage":                {"b9", meshsim.Garbage()},
		"huge":                   {"b10", meshsim.Huge(9 << 20)},
		"too many in a 200":      {"b12", meshsim.Envelope("tooManyRequest")},
		// The institution did its work, and forgives the old token.
		"dropped answer": {"graceful", meshsim.Drop()},
		"cut answer":     {"graceful", meshsim.Cut()},
		"hanging":        {"graceful", meshsim.Hang()},
		"late 500":       {"graceful", meshsim.HTTPStatus(500).AfterWork()},
		"late garbage":   {"graceful", meshsim.Garbage().AfterWork()},
	}
	for user, c := range cases {
		h.connectAged(user, due, spec(c.broker), user, c.action, c.action)
	}
	for user := range cases {
		t.Run(user, func(t *testing.T) {
			h := h.in(t)
			refreshed := h.event(events.TokenRefreshed, user)
			require.EqualValues(t, 2, refreshed.Data.Version)
			require.Len(t, h.requests(user), 3)
			require.Len(t, h.eventsOf("", user), 2, "stored and refreshed, and nothing in between")
			token := h.get(events.TokenRequest{UserID: user}).AccessTokens[0].AccessToken
			valid, why := h.stack.Mesh.AccessTokenState(token)
			require.True(t, valid, why)
			require.True(t, h.chain(user).Alive())
		})
	}
	require.Empty(t, h.stack.Mesh.Ledger().DoubleSpends())
}

func TestUnusualAnswersAreTaken(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	require.NoError(t, h.stack.Mesh.Speak("deprecated", "deprecatedFields"))
	for name, action := range map[string]meshsim.Action{
		"unknown-fields": meshsim.Speak("unknownMembers"),
		"deprecated":     meshsim.Normal(),
		"omitted":        meshsim.OmitRefreshToken(),
	} {
		t.Run(name, func(t *testing.T) {
			h := h.in(t)
			h.connectAged(name, due, spec(name), name, action)
			h.event(events.TokenRefreshed, name)
			// The refresh token that is now held is the one that is expected.
			h.get(h.refusing(events.TokenRequest{UserID: name}))
			requests := h.requests(name)
			require.Len(t, requests, 2)
			require.True(t, requests[1].Issued)
			require.False(t, requests[1].Replaced)
		})
	}
}

func TestRetryAfterIsObeyed(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	h.connectAged("seconds", due, spec("b1"), "seconds", meshsim.HTTPStatus(429).WithRetryAfter(3*time.Second))
	h.connectAged("date", due, spec("b2"), "date", meshsim.HTTPStatus(429).WithRetryAfterDate(4*time.Second))
	for _, user := range []string{"seconds", "date"} {
		h.event(events.TokenRefreshed, user)
		requests := h.requests(user)
		require.Len(t, requests, 2)
		require.GreaterOrEqual(t, requests[1].At.Sub(requests[0].At), 3*time.Second, user)
		require.Empty(t, h.eventsOf(events.TokenExpiring, user), "waiting is no failure")
	}
}

func TestMFARequiredServesTheTokenToItsEnd(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	// A machine that is slow to make the first refresh would have reconciliation
	// announce first that the token is about to end.
	h.worker("LATCHKEY_RECONCILE_INTERVAL=1m")
	h.connectAged("u", life-4*time.Second, spec("coinbase"), "a", meshsim.MFARequired())
	expiring := h.event(events.TokenExpiring, "u")
	require.Equal(t, events.ReasonMFARequired, expiring.Data.Reason)
	require.NotNil(t, expiring.Data.ExpiresAt)
	expired := h.event(events.TokenExpired, "u")
	require.Equal(t, events.ReasonMFARequired, expired.Data.Reason)
	require.False(t, expired.Time.Before(*expiring.Data.ExpiresAt), "expired at %s, before its end %s", expired.Time, expiring.Data.ExpiresAt)
	require.Len(t, h.requests("a"), 1, "the user has to act; asking again is no use")
	require.Len(t, h.eventsOf(events.TokenExpiring, "u"), 1)
	require.False(t, h.scheduled(expired.Data.GrantID))
}

func TestMustActIsOverWithANewConnect(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	h.connectAged("u", due, spec("coinbase"), "a", meshsim.MFARequired())
	h.event(events.TokenExpiring, "u")
	require.Len(t, h.get(events.TokenRequest{UserID: "u"}).AccessTokens, 1, "still good until its end")
	again := h.connectAged("u", fresh, spec("coinbase"), "a")
	h.nth(events.TokenStored, "u", 2)
	reply := h.get(events.TokenRequest{UserID: "u"})
	require.Equal(t, again.Accounts[0].AccessToken.Reveal(), reply.AccessTokens[0].AccessToken.Reveal())
}

func TestFinalRefusalsExpireTheGrant(t *testing.T) {
	t.Parallel()
	lost := meshsim.Institution{AccessLifetime: life, RefreshLifetime: 24 * life}
	h := start(t, map[string]meshsim.Institution{"lost": lost})
	h.worker()
	for name, c := range map[string]struct {
		broker  string
		actions []meshsim.Action
		reason  events.Reason
	}{
		"rejected":   {"b1", []meshsim.Action{meshsim.Killed("no")}, events.ReasonRejected},
		"failed":     {"b2", slices.Repeat([]meshsim.Action{meshsim.Failed("no")}, 2), events.ReasonRejected},
		"notFound":   {"b3", slices.Repeat([]meshsim.Action{meshsim.MappedEnvelope("notFound")}, 2), events.ReasonNotFound},
		"badRequest": {"b4", slices.Repeat([]meshsim.Action{meshsim.Speak("missingField")}, 3), events.ReasonBadRequest},
		"lost":       {"lost", []meshsim.Action{meshsim.Drop()}, events.ReasonOutcomeLost},
	} {
		t.Run(name, func(t *testing.T) {
			h := h.in(t)
			h.connectAged(name, over, spec(c.broker), name, c.actions...)
			expired := h.event(events.TokenExpired, name)
			require.Equal(t, c.reason, expired.Data.Reason)
			require.False(t, h.scheduled(expired.Data.GrantID))
			_, code, body := h.ask(events.TokenRequest{UserID: name})
			require.Equal(t, events.CodeExpired, code)
			require.Contains(t, string(body), string(c.reason))
			told := h.eventsOf(events.TokenExpiring, name)
			require.Equal(t, c.reason, told[len(told)-1].Data.Reason, "told before")
		})
	}
}

func TestBadRequestIsCuredByTheAccessToken(t *testing.T) {
	t.Parallel()
	picky := meshsim.Institution{AccessLifetime: life, RefreshLifetime: 24 * life, NeedsAccessToken: true}
	h := start(t, map[string]meshsim.Institution{"unlisted": picky, "weBull": picky})
	h.worker()
	h.connectAged("unlisted", due, spec("unlisted"), "unlisted")
	h.connectAged("listed", due, spec("weBull"), "listed")
	h.event(events.TokenRefreshed, "unlisted")
	require.Len(t, h.requests("unlisted"), 2)
	h.event(events.TokenRefreshed, "listed")
	require.Len(t, h.requests("listed"), 1, "the list says what it needs")
	h.get(h.refusing(events.TokenRequest{UserID: "unlisted"}))
	require.Len(t, h.requests("unlisted"), 3, "what it needs is remembered")
}

func TestRefusedCredentialsPauseEverything(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	w := h.worker("LATCHKEY_REFRESH_CREDENTIALS_MIN=3s", "LATCHKEY_REFRESH_CREDENTIALS_MAX=3s")
	_, err := h.stack.Mesh.Inject(meshsim.Fault{Action: meshsim.HTTPStatus(401)})
	require.NoError(t, err)
	h.connectAged("u1", due, spec("b1"), "u1")
	h.eventually(func() bool { r := h.underWay("u1"); return len(r) > 0 && !r[0].AnsweredAt.IsZero() }, "no request")
	h.eventually(func() bool { return strings.Contains(h.logs.String(), "Mesh refuses the client credentials") }, "the log does not say so")
	for n := 2; n <= 4; n++ {
		user := fmt.Sprint("u", n)
		h.connectAged(user, due, spec(fmt.Sprint("b", n)), user)
	}
	h.eventually(func() bool { return w.metric("latchkey_refreshes_postponed_total") > 0 }, "nothing was postponed")
	h.stack.Mesh.ClearFaults()
	first := h.underWay("u1")[0].At
	for n := 1; n <= 4; n++ {
		user := fmt.Sprint("u", n)
		h.event(events.TokenRefreshed, user)
		require.Len(t, h.eventsOf("", user), 2, "no grant is at fault")
		if n > 1 {
			require.GreaterOrEqual(t, h.requests(user)[0].At.Sub(first), 3*time.Second)
		}
	}
}

func TestTokenWithoutRefreshTokenIsAnnouncedAndExpires(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	h.connectAged("u", life-4*time.Second, meshsim.ConnectSpec{BrokerType: "coinbase", NoRefreshToken: true}, "a")
	expiring := h.event(events.TokenExpiring, "u")
	require.Equal(t, events.ReasonNoRefreshToken, expiring.Data.Reason)
	require.Nil(t, expiring.Data.RefreshTokenExpiresAt)
	expired := h.event(events.TokenExpired, "u")
	require.Equal(t, events.ReasonNoRefreshToken, expired.Data.Reason)
	require.False(t, expired.Time.Before(*expiring.Data.ExpiresAt))
	require.Empty(t, h.requests("a"))
	require.Len(t, h.eventsOf("", "u"), 3)
}

func TestTokenThatNeverExpiresIsLeftAlone(t *testing.T) {
	t.Parallel()
	h := start(t, map[string]meshsim.Institution{
		"eternal": {}, "null": {LifetimeForm: meshsim.LifetimeNull, AccessLifetime: life},
		"zero": {LifetimeForm: meshsim.LifetimeZero, AccessLifetime: life},
	})
	h.worker()
	for _, broker := range []string{"eternal", "null", "zero"} {
		h.connectAged(broker, over, spec(broker), broker)
		stored := h.event(events.TokenStored, broker)
		require.Nil(t, stored.Data.ExpiresAt)
		require.Nil(t, stored.Data.RefreshTokenExpiresAt)
		require.False(t, h.scheduled(stored.Data.GrantID))
	}
	// What was due since is done.
	h.connectAged("other", over, spec("other"), "other")
	h.event(events.TokenRefreshed, "other")
	for _, broker := range []string{"eternal", "null", "zero"} {
		require.Nil(t, h.grants(broker)[0].Due)
		require.Empty(t, h.requests(broker))
		require.Len(t, h.eventsOf("", broker), 1)
		reply := h.get(events.TokenRequest{UserID: broker})
		require.Nil(t, reply.Expiries[0].ExpiresAt)
	}
}

func TestRefreshTokenIsRenewedBeforeItsEnd(t *testing.T) {
	t.Parallel()
	h := start(t, map[string]meshsim.Institution{
		"on request": {Rotation: meshsim.RotateOnRequest, AccessLifetime: 100 * life, RefreshLifetime: life},
	})
	h.worker()
	h.connectAged("renewed", due, spec("on request"), "renewed")
	refreshed := h.event(events.TokenRefreshed, "renewed")
	require.Len(t, h.chain("renewed").Refresh, 2, "a new refresh token was asked for")
	require.True(t, refreshed.Data.RefreshTokenExpiresAt.After(time.Now().Add(life/2)))

	h.connectAged("not yet", fresh, spec("on request"), "not yet")
	h.event(events.TokenStored, "not yet")
	h.get(h.refusing(events.TokenRequest{UserID: "not yet"}))
	require.Len(t, h.requests("not yet"), 1)
	require.Len(t, h.chain("not yet").Refresh, 1, "its refresh token has long to live")
}

func TestFailuresPastTheEndAreAnnouncedOnce(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	_, err := h.stack.Mesh.Inject(meshsim.Fault{Action: meshsim.MappedEnvelope("locked")})
	require.NoError(t, err)
	h.connectAged("u", over, spec("coinbase"), "a")
	expiring := h.event(events.TokenExpiring, "u")
	require.Equal(t, events.ReasonRefreshFailing, expiring.Data.Reason)
	h.eventually(func() bool { return len(h.underWay("a")) >= 5 }, "it is not tried again")
	require.Len(t, h.eventsOf(events.TokenExpiring, "u"), 1)
	h.stack.Mesh.ClearFaults()
	h.event(events.TokenRefreshed, "u")
	require.Len(t, h.get(events.TokenRequest{UserID: "u"}).AccessTokens, 1)
	require.Len(t, h.eventsOf("", "u"), 3)
}
