package meshsim_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events/secret"
)

func TestLinkTokens(t *testing.T) {
	b := newBench(t)
	linkToken := func(q body) (int, string) {
		var out struct{ Content struct{ LinkToken string } }
		r := b.do(http.MethodPost, "/api/v1/linktoken", q)
		_ = json.Unmarshal(r.raw, &out)
		return r.code, out.Content.LinkToken
	}
	code, token := linkToken(body{"userId": "u", "restrictMultipleAccounts": true})
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, string(must(base64.StdEncoding.DecodeString(token))), "http://")
	b.LinkTokens(func(user string) string { return "for " + user })
	_, token = linkToken(body{"userId": strings.Repeat("é", 300)})
	require.Equal(t, "for "+strings.Repeat("é", 300), token)
	for _, wrong := range []body{{}, {"userId": strings.Repeat("u", 301)}, {"userId": "u", "integrationId": "no such"}} {
		code, _ = linkToken(wrong)
		require.Equal(t, http.StatusBadRequest, code)
	}
	var list struct {
		Content struct{ Items []struct{ ID, Type string } }
	}
	require.NoError(t, json.Unmarshal(b.do(http.MethodGet, "/api/v1/integrations", nil).raw, &list))
	require.NotEmpty(t, list.Content.Items)
	for _, i := range list.Content.Items {
		code, _ = linkToken(body{"userId": "u", "integrationId": i.ID})
		require.Equal(t, http.StatusOK, code, i.Type)
	}
}

// The credentials are good, whatever becomes of a user's token, and the health of
// each institution is its own.
func TestStatus(t *testing.T) {
	b := newBench(t)
	require.NoError(t, b.Speak("kraken", "firewall"))
	r := b.do(http.MethodGet, "/api/v1/status", nil)
	require.Equal(t, http.StatusOK, r.code)
	var out struct {
		Content []struct {
			Type string
			IsUp bool
		}
	}
	require.NoError(t, json.Unmarshal(r.raw, &out))
	down := 0
	for _, i := range out.Content {
		require.Equal(t, i.Type != "kraken", i.IsUp)
		if !i.IsUp {
			down++
		}
	}
	require.Equal(t, 1, down)
	resp := must(http.Get(b.url + "/api/v1/status")) //nolint:bodyclose // the next line does; the linter does not look into must
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
}

func TestHoldings(t *testing.T) {
	b := newBench(t)
	c := must(b.Connect(meshsim.ConnectSpec{BrokerType: "coinbase", Accounts: accounts(), WithTokenIDs: true}))
	get := func(token secret.Text, brokerType string) (int, string) {
		var out struct{ Content struct{ AccountID string } }
		r := b.do(http.MethodPost, "/api/v1/holdings/get", body{"authToken": token.Reveal(), "type": brokerType})
		_ = json.Unmarshal(r.raw, &out)
		value := b.do(http.MethodPost, "/api/v1/holdings/value", body{"authToken": token.Reveal(), "type": brokerType})
		require.Equal(t, r.code, value.code)
		balance := b.do(http.MethodPost, "/api/v1/balance/get", body{"authToken": token.Reveal(), "type": brokerType})
		require.Equal(t, r.code, balance.code)
		return r.code, out.Content.AccountID
	}
	code, account := get(c.Accounts[1].AccessToken, "coinbase")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "a2", account)
	for token, brokerType := range map[string]string{"unknown": "coinbase", c.Accounts[0].AccessToken.Reveal(): "kraken"} {
		code, _ = get(secret.New(token), brokerType)
		require.Equal(t, http.StatusUnauthorized, code)
	}
	code, _ = get(secret.New(""), "coinbase")
	require.Equal(t, http.StatusBadRequest, code)
	fresh := b.renew(c.Accounts[0].RefreshToken.Reveal()).access(0)
	b.clock.Advance(time.Hour)
	code, _ = get(fresh, "coinbase")
	require.Equal(t, http.StatusUnauthorized, code, "the access token is over")
	code, _ = get(c.Accounts[0].AccessToken, "coinbase")
	require.Equal(t, http.StatusOK, code, "the tokenId opens the account for as long as the grant lives")
	require.NoError(t, b.Kill("a1"))
	code, _ = get(c.Accounts[0].AccessToken, "coinbase")
	require.Equal(t, http.StatusUnauthorized, code)
}

// What an account was connected with is its balance, and a portfolio needs a user.
func TestBalancesAndPortfolios(t *testing.T) {
	b := newBench(t)
	c := must(b.Connect(meshsim.ConnectSpec{BrokerType: "coinbase", Accounts: []meshsim.Account{{ID: "a1", Cash: new(3.0), Fund: new(4.0)}}}))
	r := b.do(http.MethodPost, "/api/v1/balance/get", body{"authToken": c.Accounts[0].AccessToken.Reveal(), "type": "coinbase"})
	require.Equal(t, http.StatusOK, r.code)
	require.Contains(t, string(r.raw), `"balances":[{"cash":3,"buyingPower":4,"currencyCode":"USD"}]`)
	for path, code := range map[string]int{
		"holdings/portfolio": http.StatusBadRequest, "holdings/portfolio?UserId=" + strings.Repeat("u", 301): http.StatusBadRequest,
		"holdings/portfolio?UserId=alice&TimezoneOffset=3600": http.StatusOK, "holdings/portfolio?userId=alice": http.StatusOK,
		"balance/portfolio": http.StatusOK, "balance/portfolio?UserId=alice": http.StatusOK,
	} {
		require.Equal(t, code, b.do(http.MethodGet, "/api/v1/"+path, nil).code, path)
	}
}

// POST /sim/connect takes the names that Mesh's payloads have, and hands over what a
// browser does, whatever the dialect.
func TestConnectTakesMeshsNames(t *testing.T) {
	b := newBench(t)
	r := b.do(http.MethodPost, "/sim/connect", body{
		"brokerType": "coinbase", "brokerName": "Coinbase", "expiresInSeconds": 60, "refreshTokenExpiresInSeconds": 600, "dialects": []string{"noAccount"},
		"accounts": []body{{"accountId": "x1", "accountName": "One", "cash": 3}, {"accountId": "x2", "accountName": "Two"}},
	})
	require.Equal(t, http.StatusOK, r.code, string(r.raw))
	var out struct{ Payload linkPayload }
	require.NoError(t, json.Unmarshal(r.raw, &out))
	p := out.Payload.AccessToken
	require.Equal(t, "x2", p.AccountTokens[1].Account.AccountID)
	require.Equal(t, "Two", p.AccountTokens[1].Account.AccountName)
	require.Equal(t, int32(60), *p.ExpiresInSeconds)
	require.Equal(t, int32(600), *p.RefreshTokenExpiresInSeconds)
	require.NotContains(t, string(b.renew(p.AccountTokens[0].RefreshToken).raw), "accountId")
	require.Equal(t, http.StatusBadRequest, b.do(http.MethodPost, "/sim/connect", body{"brokerType": "coinbase", "acounts": 1}).code)

	account := body{
		"accountId": "y", "accountName": "Why", "meshAccountId": "5f8a", "frontAccountId": "5f8a", "fund": "12.5", "cash": nil, "isReconnected": nil,
		"balances": []body{{"symbol": "USD"}},
	}
	tokens := body{
		"accountTokens":   []body{{"account": account, "accessToken": "a", "refreshToken": "r", "tokenId": "i"}},
		"brokerBrandInfo": body{"brokerLogo": "aGk="}, "expiresInSeconds": "120", "refreshTokenExpiresInSeconds": 600.0, "brokerType": "coinbase", "brokerName": "Coinbase",
	}
	delayed := body{"delayedAuth": body{"refreshToken": "r", "brokerType": "coinbase", "brokerName": "Coinbase", "refreshTokenExpiresInSeconds": "600", "brokerBrandInfo": body{}}}
	for name, spec := range map[string]body{
		"account":       {"type": "coinbase", "userId": "alice", "expiresInSeconds": "120", "logoBytes": "9", "accounts": []body{account}},
		"bare form":     tokens,
		"wrapped form":  {"accessToken": tokens, "userId": "alice"},
		"answer":        {"type": "coinbase", "status": "succeeded", "expiresInSeconds": 120, "brokerAccountTokens": []body{{"account": account}}, "accessToken": nil},
		"delayed":       delayed,
		"without names": {"brokerType": "coinbase", "expiresInSeconds": 120, "accountTokens": []body{{"account": nil, "accessToken": "a"}, {}}},
	} {
		r := b.do(http.MethodPost, "/sim/connect", spec)
		require.Equal(t, http.StatusOK, r.code, "%s: %s", name, r.raw)
		var out struct{ Payload linkPayload }
		require.NoError(t, json.Unmarshal(r.raw, &out), name)
		if name == "delayed" {
			require.Contains(t, string(r.raw), `"delayedAuth":{"refreshToken":"sim-`)
			continue
		}
		p := out.Payload.AccessToken
		require.Equal(t, int32(120), *p.ExpiresInSeconds, name)
		require.Equal(t, name == "without names", p.AccountTokens[0].Account.AccountID != "y", name)
		require.NotEmpty(t, p.AccountTokens[0].Account.AccountID, name)
	}
	for _, wrong := range []body{
		{"brokerType": "coinbase", "expiresInSeconds": "soon"},
		{"brokerType": "coinbase", "expiresInSeconds": "NaN"},
		{"brokerType": "coinbase", "expiresInSeconds": "1e300"},
		{"brokerType": "coinbase", "expiresInSecond": 1},
		{"brokerType": "coinbase", "accounts": []body{{"acountId": "x"}}},
		{"brokerType": "coinbase", "accountTokens": []body{{"acount": body{}}}},
		{"accessToken": body{"brokerTyp": "coinbase"}},
	} {
		require.Equal(t, http.StatusBadRequest, b.do(http.MethodPost, "/sim/connect", wrong).code, wrong)
	}

	for _, name := range meshsim.DialectNames(meshsim.OnConnect, meshsim.OnLifetimes) {
		r := b.do(http.MethodPost, "/sim/connect", body{"brokerType": "coinbase", "dialects": []string{name}})
		require.Equal(t, http.StatusOK, r.code, name)
		require.True(t, json.Valid(r.raw), name)
	}
}

func TestDialectsFromAnotherProcess(t *testing.T) {
	b := newBench(t)
	remote := meshsim.Remote{URL: b.url, ClientID: clientID, ClientSecret: secret.New(clientSecret)}
	require.NoError(t, remote.Speak(t.Context(), "coinbase", "firewall"))
	require.Equal(t, map[string][]string{"coinbase": {"firewall"}}, b.Spoken())
	require.Error(t, remote.Speak(t.Context(), "coinbase", "klingon"))
	r := b.do(http.MethodGet, "/sim/dialects", nil)
	require.Equal(t, http.StatusOK, r.code)
	require.Contains(t, string(r.raw), `"says"`)
	i := speaking("loneSurrogate")
	c, err := remote.Connect(t.Context(), meshsim.ConnectSpec{BrokerType: "kraken", Institution: &i})
	require.NoError(t, err)
	require.Contains(t, c.Payload.Reveal(), `\ud83d`)
	require.NoError(t, remote.Speak(t.Context(), "coinbase"))
	require.Empty(t, b.Spoken())
}
