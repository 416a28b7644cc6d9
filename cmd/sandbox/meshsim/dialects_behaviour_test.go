package meshsim_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events/secret"
)

func TestOneAccountAtATime(t *testing.T) {
	b := newBench(t)
	token := b.connectTwo(speaking("oneAccountAtATime")).Accounts[0].RefreshToken.Reveal()
	for _, id := range []string{"a1", "a2", "a1"} {
		r := b.renew(token)
		require.Len(t, r.Content.BrokerAccountTokens, 1)
		require.Equal(t, id, r.Content.BrokerAccountTokens[0].Account.AccountID)
		token = r.refresh()
	}
}

func TestOneTokenForAll(t *testing.T) {
	b := newBench(t)
	c := b.connectTwo(speaking("oneTokenForAll", "oldAccessTokenEnds"))
	r := b.renew(c.Accounts[0].RefreshToken.Reveal())
	require.Len(t, r.Content.BrokerAccountTokens, 1)
	require.Empty(t, r.Content.BrokerAccountTokens[0].Account.AccountID)
	b.requireAccess(r.access(0), "")
	b.requireAccess(c.Accounts[1].AccessToken, "replaced")
}

func TestARefreshTokenForEachAccount(t *testing.T) {
	dir := t.TempDir()
	b := newBench(t, inDir(dir, nil))
	i := speaking("refreshTokenEach")
	i.Grace = time.Hour
	token := b.connectTwo(i).Accounts[0].RefreshToken.Reveal()
	for range 2 { // the second time within the grace window
		r := b.renew(token)
		require.Len(t, r.Content.BrokerAccountTokens, 2)
		one, two := r.Content.BrokerAccountTokens[0], r.Content.BrokerAccountTokens[1]
		require.NotEqual(t, *one.RefreshToken, *two.RefreshToken)
		require.Equal(t, "a2", two.Account.AccountID)
	}
	first, second := b.chain("a1"), b.chain("a2")
	require.NotEqual(t, first.ID, second.ID)
	require.Equal(t, first.ID, second.SplitFrom)
	require.Len(t, first.Accounts, 1)

	own := b.newest("a2")
	r := b.renew(own)
	require.Len(t, r.Content.BrokerAccountTokens, 1)
	require.Equal(t, "a2", r.Content.BrokerAccountTokens[0].Account.AccountID)
	l := b.Ledger()
	require.True(t, l.Requests[1].Resent)
	require.Len(t, l.ReplacedPresented(), 1)
	require.NoError(t, b.Close())
	sameLedger(t, l, newBench(t, inDir(dir, b.clock)).Ledger())
}

// One lifetime is told of all tokens of an answer, so none of them may have ended.
func TestRefreshTokensForEachAccountAreAnsweredAgainWithLivingAccessTokens(t *testing.T) {
	b := newBench(t)
	i := speaking("refreshTokenEach")
	i.Grace = 3 * time.Hour
	token := b.connectTwo(i).Accounts[0].RefreshToken.Reveal()
	first := b.renew(token)
	b.clock.Advance(2 * time.Hour)
	b.requireAccess(first.access(1), "expired")
	again := b.renew(token)
	require.Len(t, again.Content.BrokerAccountTokens, 2)
	for n := range 2 {
		b.requireAccess(again.access(n), "")
	}
	require.Equal(t, first.refresh(), again.refresh())
}

func TestTheLedgerKnowsInWhichDialectsAnAnswerWasTold(t *testing.T) {
	b := newBench(t)
	_, token, _ := b.connect(speaking("junkAfter", "noAccount", "oldAccessTokenEnds"))
	b.ask(token)
	require.NoError(t, b.Speak("coinbase", "firewall"))
	b.ask(token)
	told, hidden := b.Ledger().Requests[0], b.Ledger().Requests[1]
	require.True(t, told.Spoke("junkAfter") && told.Spoke("noAccount"), told.Outcome)
	require.False(t, told.Spoke("oldAccessTokenEnds") || told.Spoke("firewall"), told.Outcome)
	require.True(t, hidden.Spoke("firewall") && !hidden.Spoke("noAccount"), hidden.Outcome)
}

func TestARefreshTokenAlone(t *testing.T) {
	b := newBench(t)
	i := speaking("refreshTokenAlone")
	i.Grace = time.Hour
	id, token, access := b.connect(i)
	b.script(id, meshsim.Drop())
	_, err := b.try(http.MethodPost, refreshPath, renewal(token))
	require.Error(t, err)
	r := b.renew(token)
	for _, q := range b.Ledger().Requests {
		require.False(t, q.Issued, "it holds no access token")
	}
	require.Nil(t, r.Content.BrokerAccountTokens[0].AccessToken)
	require.NotEqual(t, token, r.refresh())
	b.requireAccess(access, "")
	again := b.renew(r.refresh())
	require.NotNil(t, again.Content.BrokerAccountTokens[0].AccessToken)
	require.True(t, b.chain(id).Alive())
	b.renew(token)
	require.Len(t, b.Ledger().Violations(), 1)
}

func TestARefreshTokenDiesFromDisuse(t *testing.T) {
	b := newBench(t)
	i := speaking("diesFromDisuse")
	i.Rotation = meshsim.RotateNever
	id, token, _ := b.connect(i)
	for range 3 {
		b.clock.Advance(23 * time.Hour)
		require.Equal(t, "succeeded", b.renew(token).Content.Status)
	}
	b.clock.Advance(day)
	require.Equal(t, meshsim.DeadByDisuse, b.chain(id).DeadBecause)
	require.Equal(t, "failed", b.renew(token).Content.Status)
	require.Equal(t, meshsim.DeadByDisuse, b.chain(id).DeadBecause)
}

func TestATradeToken(t *testing.T) {
	b := newBench(t)
	i := speaking("tradeTokenRequired", "accessTokenRequired")
	c := must(b.Connect(meshsim.ConnectSpec{BrokerType: "coinbase", Institution: &i}))
	var payload struct {
		AccessToken struct {
			AccountTokens []struct{ TradeToken, RefreshToken, AccessToken string }
		}
	}
	decodeInto(t, c.Payload, &payload)
	handed := payload.AccessToken.AccountTokens[0]
	for _, wrong := range []body{{"tradeToken": handed.TradeToken}, {"accessToken": handed.AccessToken}, {"accessToken": handed.AccessToken, "tradeToken": "another"}} {
		r := b.renew(handed.RefreshToken, wrong)
		require.Equal(t, http.StatusBadRequest, r.code)
		require.Equal(t, "invalidField", *r.ErrorType)
	}
	require.Equal(t, "succeeded", b.renew(handed.RefreshToken, body{"accessToken": handed.AccessToken, "tradeToken": handed.TradeToken}).Content.Status)
}

func TestManagedTokens(t *testing.T) {
	b := newBench(t)
	i := speaking("managedTokens")
	c := must(b.Connect(meshsim.ConnectSpec{BrokerType: "coinbase", Institution: &i}))
	p, _ := decodePayload(t, c)
	handed := p.AccessToken.AccountTokens[0]
	require.Equal(t, handed.AccessToken, handed.TokenID)
	require.Empty(t, handed.RefreshToken)
	require.Nil(t, p.AccessToken.ExpiresInSeconds)
	b.clock.Advance(50 * day)
	b.requireAccess(c.Accounts[0].AccessToken, "")
}

// The handle stays when the access token is replaced.
func TestATokenIDPartsFromItsAccessToken(t *testing.T) {
	b := newBench(t)
	c := must(b.Connect(meshsim.ConnectSpec{BrokerType: "coinbase", WithTokenIDs: true}))
	r := b.renew(c.Accounts[0].RefreshToken.Reveal())
	tokens := r.Content.BrokerAccountTokens[0]
	require.Equal(t, c.Accounts[0].AccessToken.Reveal(), *tokens.TokenID)
	require.NotEqual(t, *tokens.AccessToken, *tokens.TokenID)
}

func TestTheSecondStepOfTheVanguardFlow(t *testing.T) {
	b := newBench(t)
	id, token, _ := b.connect(speaking("mfa"))
	interim := func() string { return b.renew(token).access(0).Reveal() }
	second := func(code, access string) reply { return b.renew(token, body{"mfaCode": code, "accessToken": access}) }

	first := interim()
	require.Equal(t, "failed", second("654321", first).Content.Status, "a wrong code")
	require.Equal(t, "failed", second(meshsim.DefaultMFACode, "another").Content.Status, "a wrong token")
	b.clock.Advance(meshsim.DefaultMFALifetime)
	late := second(meshsim.DefaultMFACode, first)
	require.Equal(t, "failed", late.Content.Status)
	require.Contains(t, *late.Content.ErrorMessage, "expired")
	require.Len(t, b.chain(id).Refresh, 1, "the refresh token stays unspent")
	require.Equal(t, "succeeded", second(meshsim.DefaultMFACode, interim()).Content.Status)
	require.Len(t, b.chain(id).Refresh, 2)
	require.Empty(t, b.Ledger().ReplacedPresented())
}

func TestARefusedCode(t *testing.T) {
	b := newBench(t)
	_, token, _ := b.connect(speaking("mfa", "mfaCodeInvalid"))
	interim := b.renew(token).access(0).Reveal()
	r := b.renew(token, body{"mfaCode": "0", "accessToken": interim})
	require.Equal(t, http.StatusBadRequest, r.code)
	require.Equal(t, "invalidField", *r.ErrorType)

	_, token, _ = b.connect(speaking("mfa", "mfaAskedAgain"))
	interim = b.renew(token).access(0).Reveal()
	r = b.renew(token, body{"mfaCode": "0", "accessToken": interim})
	require.Equal(t, "mfaRequired", r.Content.Status)
	require.NotEqual(t, interim, r.access(0).Reveal())
	require.Equal(t, "succeeded", b.renew(token, body{"mfaCode": meshsim.DefaultMFACode, "accessToken": r.access(0).Reveal()}).Content.Status)
}

func TestARemovalThatSaysItFailed(t *testing.T) {
	b := newBench(t)
	i := speaking("removalServerFailure")
	_, _, access := b.connect(i)
	r := b.do(http.MethodDelete, accountPath, body{"type": "coinbase", "authToken": access.Reveal()})
	require.Equal(t, http.StatusOK, r.code)
	require.Equal(t, "serverFailure", r.Status)
}

// Two payloads of one login hold the same tokens.
func TestALoginIsHandedOverAgain(t *testing.T) {
	b := newBench(t)
	c := b.connectTwo(standard())
	again := must(b.Connect(meshsim.ConnectSpec{BrokerType: "coinbase", Again: true, Accounts: accounts()[1:]}))
	require.Equal(t, c.Accounts[1], again.Accounts[0])
	delayed := must(b.Connect(meshsim.ConnectSpec{BrokerType: "coinbase", Again: true, Delayed: true, Accounts: accounts()[:1]}))
	p, _ := decodePayload(t, delayed)
	require.Equal(t, c.Accounts[0].RefreshToken.Reveal(), p.DelayedAuth.RefreshToken)
	require.Len(t, b.Ledger().Chains, 1)
	_, err := b.Connect(meshsim.ConnectSpec{BrokerType: "coinbase", Again: true, Accounts: []meshsim.Account{{ID: "nobody's"}}})
	require.Error(t, err)
	_, err = b.Connect(meshsim.ConnectSpec{BrokerType: "coinbase", Again: true})
	require.Error(t, err)
}

func decodeInto(t *testing.T, payload secret.Text, into any) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(payload.Reveal()), into))
}
