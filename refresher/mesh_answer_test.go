package refresher_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/refresher"
)

func TestRequestOnTheWire(t *testing.T) {
	for want, r := range map[string]refresher.RefreshRequest{
		`{"type":"coinbase","refreshToken":"r"}`: {BrokerType: "coinbase", RefreshToken: text("r")},
		`{"type":"weBull","refreshToken":"r","createNewRefreshToken":true,"accessToken":"a","tradeToken":"t"}`: {
			BrokerType: "weBull", RefreshToken: text("r"), CreateNewRefreshToken: true, AccessToken: text("a"), TradeToken: text("t"),
		},
	} {
		var got *http.Request
		var sent []byte
		server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			got = r
			sent, _ = io.ReadAll(r.Body)
		}))
		_, err := newMesh(t, server.URL+"/").Refresh(t.Context(), r)
		server.Close()
		require.Error(t, err, "the answer was empty")
		require.JSONEq(t, want, string(sent))
		require.Equal(t, "POST /api/v1/token/refresh", got.Method+" "+got.URL.Path)
		require.Equal(t, "client", got.Header.Get("X-Client-Id"))
		require.Equal(t, "canary-client-secret", got.Header.Get("X-Client-Secret"))
		require.Equal(t, "application/json", got.Header.Get("Content-Type"))
	}
}

func TestAnswersRead(t *testing.T) {
	account := func(id, access string) refresher.AnsweredAccount {
		return refresher.AnsweredAccount{ID: id, AccessToken: text(access)}
	}
	for name, c := range map[string]struct {
		content string
		want    refresher.Answer
	}{
		"in full": {
			`{"status":"succeeded","brokerAccountTokens":[
			{"account":{"accountId":"one","accountName":"One","cash":1},"accessToken":"a1","refreshToken":"r1","tokenId":"t1"},
			{"account":{"accountId":"two"},"accessToken":"a2","refreshToken":"r1"}],
			"expiresInSeconds":3600,"refreshTokenExpiresInSeconds":7200}`,
			refresher.Answer{ExpiresIn: hour, RefreshExpiresIn: 2 * hour, Accounts: []refresher.AnsweredAccount{
				{ID: "one", Name: "One", AccessToken: text("a1"), RefreshToken: text("r1"), TokenID: text("t1")},
				{ID: "two", AccessToken: text("a2"), RefreshToken: text("r1")},
			}},
		},
		"nothing but an access token": {
			`{"status":"succeeded","brokerAccountTokens":[{"account":{"accountId":"one"},"accessToken":"a1"}],
			"expiresInSeconds":null,"refreshTokenExpiresInSeconds":0}`,
			refresher.Answer{Accounts: []refresher.AnsweredAccount{account("one", "a1")}},
		},
		"an echo of the refresh token": {
			`{"status":"succeeded","brokerAccountTokens":[{"account":{"accountId":"one"},"accessToken":"a1","refreshToken":null}],
			"refreshToken":"canary-refresh"}`,
			refresher.Answer{Accounts: []refresher.AnsweredAccount{account("one", "a1")}},
		},
		"deprecated fields only": {
			`{"status":"succeeded","accessToken":"a","refreshToken":"r","brokerAccountTokens":null}`,
			refresher.Answer{AccessToken: text("a"), RefreshToken: text("r")},
		},
		"deprecated fields with the account": {
			`{"status":"succeeded","accessToken":"a","refreshToken":"r","account":{"accountId":"one","accountName":"One"}}`,
			refresher.Answer{AccessToken: text("a"), RefreshToken: text("r"), Accounts: []refresher.AnsweredAccount{
				{ID: "one", Name: "One", AccessToken: text("a"), RefreshToken: text("r")},
			}},
		},
		"both: the deprecated fields are what one falls back to": {
			`{"status":"succeeded","accessToken":"old","refreshToken":"old",
			"brokerAccountTokens":[{"account":{"accountId":"one"},"accessToken":"a1","refreshToken":"r1"}]}`,
			refresher.Answer{AccessToken: text("old"), RefreshToken: text("old"), Accounts: []refresher.AnsweredAccount{
				{ID: "one", AccessToken: text("a1"), RefreshToken: text("r1")},
			}},
		},
		"the second account has the refresh token": {
			`{"status":"succeeded","brokerAccountTokens":[{"account":{"accountId":"one"},"accessToken":"a1"},
			{"account":{"accountId":"two"},"accessToken":"a2","refreshToken":"r2"}]}`,
			refresher.Answer{Accounts: []refresher.AnsweredAccount{
				account("one", "a1"), {ID: "two", AccessToken: text("a2"), RefreshToken: text("r2")},
			}},
		},
		"fields of an unexpected type cost no token": {
			`{"status":"succeeded","expiresInSeconds":"3600","refreshTokenExpiresInSeconds":-1,
			"brokerAccountTokens":[{"account":{"accountId":7,"accountName":"One"},"accessToken":"a1","refreshToken":"r1","tokenId":[1]}],"new":{}}`,
			refresher.Answer{ExpiresIn: hour, Accounts: []refresher.AnsweredAccount{
				{Name: "One", AccessToken: text("a1"), RefreshToken: text("r1")},
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := meshAnswering(t, 200, body("ok", c.content)).Refresh(t.Context(), request)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

// TestAgainstTheSimulator holds the client against a server that keeps a
// ledger of its tokens.
func TestAgainstTheSimulator(t *testing.T) {
	sim, err := meshsim.New(meshsim.Config{Seed: text("seed"), ClientID: "client", ClientSecret: text("canary-client-secret")})
	require.NoError(t, err)
	server := httptest.NewServer(sim)
	t.Cleanup(func() { require.NoError(t, sim.Close()); server.Close() })
	m := newMesh(t, server.URL)
	connected, err := sim.Connect(meshsim.ConnectSpec{BrokerType: "coinbase", Accounts: []meshsim.Account{{ID: "one", Name: "One"}, {ID: "two", Name: "Two"}}})
	require.NoError(t, err)
	token := connected.Accounts[0].RefreshToken
	refresh := func() refresher.Answer {
		a, err := m.Refresh(t.Context(), refresher.RefreshRequest{BrokerType: "coinbase", RefreshToken: token})
		require.NoError(t, err)
		return a
	}
	usable := func(tokens ...secret.Text) {
		for _, access := range tokens {
			ok, why := sim.AccessTokenState(access)
			require.True(t, ok, why)
		}
	}
	for _, action := range []meshsim.Action{meshsim.Normal(), meshsim.Speak("unknownMembers")} {
		require.NoError(t, sim.Script("one", action))
		a := refresh()
		require.Len(t, a.Accounts, 2)
		require.Equal(t, hour, a.ExpiresIn)
		usable(a.Accounts[0].AccessToken, a.Accounts[1].AccessToken)
		token = a.NewRefreshToken()
	}
	require.NoError(t, sim.Script("one", meshsim.OmitRefreshToken()))
	require.True(t, refresh().NewRefreshToken().Empty())
	require.NoError(t, sim.Speak("coinbase", "deprecatedFields"))
	deprecated := refresh()
	require.Equal(t, "one", deprecated.Accounts[0].ID)
	usable(deprecated.AccessToken)
	token = deprecated.NewRefreshToken()
	require.NoError(t, sim.Speak("coinbase"))
	valid, why := sim.Ledger().RefreshTokenState(token)
	require.True(t, valid, why)

	for action, ambiguous := range map[meshsim.Action]bool{
		meshsim.Garbage():     true,
		meshsim.Huge(9 << 20): true,
		meshsim.Reset():       true,
		meshsim.HTTPStatus(503).WithRetryAfter(time.Second):  true,
		meshsim.MappedEnvelope(meshsim.StatusConflict):       false,
		meshsim.MappedEnvelope(meshsim.StatusTooManyRequest): false,
		meshsim.Failed("no"):                                 false,
		meshsim.MFARequired():                                false,
	} {
		require.NoError(t, sim.Script("one", action))
		_, err := m.Refresh(t.Context(), refresher.RefreshRequest{BrokerType: "coinbase", RefreshToken: token})
		require.Error(t, err)
		require.Equal(t, ambiguous, refresher.AsFailure(err).Ambiguous, "%s: %v", action.Kind, err)
	}
	require.Empty(t, sim.Ledger().ReplacedPresented())

	wrong := newMesh(t, server.URL, func(o *refresher.MeshOptions) { o.ClientSecret = text("wrong") })
	require.Equal(t, refresher.Denied, refused(t, wrong).Class)
}

func TestRemove(t *testing.T) {
	for status, fails := range map[int]bool{200: false, 204: false, 404: false, 302: true, 400: true, 401: true, 500: true} {
		var got string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			sent, _ := io.ReadAll(r.Body)
			if r.Method == http.MethodGet { // whose a 401 is
				return
			}
			got = fmt.Sprint(r.Method, " ", r.URL.Path, " ", r.Header.Get("X-Client-Secret"), " ", string(sent))
			w.WriteHeader(status)
		}))
		err := newMesh(t, server.URL).Remove(t.Context(), text("canary-access"), "coinbase")
		server.Close()
		require.Equal(t, `DELETE /api/v1/account canary-client-secret {"authToken":"canary-access","type":"coinbase"}`, got)
		require.Equal(t, fails, err != nil, "%d: %v", status, err)
		if err != nil {
			require.NotContains(t, err.Error(), "canary")
		}
	}
	require.ErrorContains(t, newMesh(t, "http://127.0.0.1:1").Remove(t.Context(), text("canary-access"), "coinbase"), "removing an account at Mesh")
}
