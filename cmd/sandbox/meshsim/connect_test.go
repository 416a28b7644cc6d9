package meshsim_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events/secret"
)

type linkPayload struct {
	AccessToken *struct {
		AccountTokens []struct {
			Account struct {
				AccountID, AccountName string
				Fund, Cash             *float64
				IsReconnected          *bool
			}
			AccessToken, RefreshToken, TokenID string
		}
		BrokerBrandInfo                                struct{ BrokerLogo string }
		ExpiresInSeconds, RefreshTokenExpiresInSeconds *int32
		BrokerType, BrokerName                         string
	}
	DelayedAuth *struct {
		RefreshToken                 string
		RefreshTokenExpiresInSeconds *int32
		BrokerBrandInfo              struct{ BrokerLogo string }
		BrokerType, BrokerName       string
	}
}

func decodePayload(t *testing.T, c meshsim.Connection) (p linkPayload, raw map[string]map[string]json.RawMessage) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(c.Payload.Reveal()), &p))
	require.NoError(t, json.Unmarshal([]byte(c.Payload.Reveal()), &raw))
	return p, raw
}

func accounts() []meshsim.Account {
	return []meshsim.Account{{ID: "a1", Name: "Main", Fund: new(12.5), Cash: new(0.0)}, {ID: "a2", Name: "Savings"}}
}

func TestConnectSharedRefreshToken(t *testing.T) {
	b := newBench(t)
	c, err := b.Connect(meshsim.ConnectSpec{
		BrokerType: "coinbase", BrokerName: "Coinbase", Accounts: accounts(), LogoBytes: meshsim.TypicalLogoBytes,
	})
	require.NoError(t, err)
	p, raw := decodePayload(t, c)
	require.NotContains(t, raw, "delayedAuth")
	a := p.AccessToken
	require.Equal(t, "coinbase", a.BrokerType)
	require.Equal(t, "Coinbase", a.BrokerName)
	require.Equal(t, int32(3600), *a.ExpiresInSeconds)
	require.Equal(t, int32(90*24*3600), *a.RefreshTokenExpiresInSeconds)
	require.Len(t, a.BrokerBrandInfo.BrokerLogo, meshsim.TypicalLogoBytes)
	require.Len(t, a.AccountTokens, 2)
	require.Equal(t, "a1", a.AccountTokens[0].Account.AccountID)
	require.Equal(t, 12.5, *a.AccountTokens[0].Account.Fund)
	require.Zero(t, *a.AccountTokens[0].Account.Cash)
	require.Nil(t, a.AccountTokens[1].Account.Fund)
	require.Equal(t, a.AccountTokens[0].RefreshToken, a.AccountTokens[1].RefreshToken)
	require.NotEqual(t, a.AccountTokens[0].AccessToken, a.AccountTokens[1].AccessToken)
	require.Empty(t, a.AccountTokens[0].TokenID)
	require.Equal(t, c.Accounts[1].AccessToken.Reveal(), a.AccountTokens[1].AccessToken)
	require.Equal(t, c.Accounts[1].RefreshToken.Reveal(), a.AccountTokens[1].RefreshToken)

	r := b.renew(a.AccountTokens[0].RefreshToken)
	require.Len(t, r.Content.BrokerAccountTokens, 2)
	require.Equal(t, "a2", r.Content.BrokerAccountTokens[1].Account.AccountID)
	require.NotEqual(t, r.access(0), r.access(1))
	b.requireAccess(r.access(1), "")
	require.Equal(t, b.chain("a1").ID, b.chain("a2").ID)
}

func TestConnectSeparateRefreshTokens(t *testing.T) {
	b := newBench(t)
	c, err := b.Connect(meshsim.ConnectSpec{
		BrokerType: "coinbase", Accounts: accounts(), SeparateRefreshTokens: true, WithTokenIDs: true,
	})
	require.NoError(t, err)
	p, _ := decodePayload(t, c)
	one, two := p.AccessToken.AccountTokens[0], p.AccessToken.AccountTokens[1]
	require.NotEqual(t, one.RefreshToken, two.RefreshToken)
	require.NotEmpty(t, one.TokenID)
	require.NotEqual(t, one.TokenID, two.TokenID)
	require.NotEqual(t, b.chain("a1").ID, b.chain("a2").ID)

	b.renew(one.RefreshToken)
	b.renew(one.RefreshToken)
	require.False(t, b.chain("a1").Alive())
	require.True(t, b.chain("a2").Alive())
	r := b.renew(two.RefreshToken)
	require.Len(t, r.Content.BrokerAccountTokens, 1)
	require.Equal(t, "a2", r.Content.BrokerAccountTokens[0].Account.AccountID)
}

func TestDeprecatedAnswerLeavesTheOtherAccountsAsTheyAre(t *testing.T) {
	b := newBench(t)
	i := standard()
	i.DeprecatedAnswer, i.RevokeOldAccess = true, true
	c, err := b.Connect(meshsim.ConnectSpec{BrokerType: "coinbase", Accounts: accounts(), Institution: &i})
	require.NoError(t, err)
	r := b.renew(c.Accounts[0].RefreshToken.Reveal())
	require.Equal(t, "a1", r.Content.Account.AccountID)
	b.requireAccess(c.Accounts[0].AccessToken, "replaced")
	b.requireAccess(c.Accounts[1].AccessToken, "")
}

func TestConnectDelayed(t *testing.T) {
	b := newBench(t)
	c, err := b.Connect(meshsim.ConnectSpec{BrokerType: "robinhood", Accounts: accounts(), Delayed: true, LogoBytes: 400})
	require.NoError(t, err)
	p, raw := decodePayload(t, c)
	require.NotContains(t, raw, "accessToken")
	require.Equal(t, "robinhood", p.DelayedAuth.BrokerType)
	require.Equal(t, "robinhood", p.DelayedAuth.BrokerName)
	require.Equal(t, int32(90*24*3600), *p.DelayedAuth.RefreshTokenExpiresInSeconds)
	require.Len(t, p.DelayedAuth.BrokerBrandInfo.BrokerLogo, 400)
	require.True(t, c.Accounts[0].AccessToken.Empty())

	r := b.renew(p.DelayedAuth.RefreshToken, body{"type": "robinhood"})
	require.Len(t, r.Content.BrokerAccountTokens, 2)
	b.requireAccess(r.access(0), "")

	for _, spec := range []meshsim.ConnectSpec{{SeparateRefreshTokens: true}, {NoRefreshToken: true}} {
		spec.BrokerType, spec.Delayed = "robinhood", true
		_, err := b.Connect(spec)
		require.Error(t, err)
	}
}

func TestConnectWithoutRefreshToken(t *testing.T) {
	b := newBench(t)
	c, err := b.Connect(meshsim.ConnectSpec{BrokerType: "kraken", NoRefreshToken: true})
	require.NoError(t, err)
	p, raw := decodePayload(t, c)
	require.NotContains(t, string(raw["accessToken"]["accountTokens"]), "refreshToken")
	require.NotContains(t, raw["accessToken"], "refreshTokenExpiresInSeconds")
	b.requireAccess(secret.New(p.AccessToken.AccountTokens[0].AccessToken), "")
	require.True(t, c.Accounts[0].RefreshToken.Empty())
}

func TestLifetimeForms(t *testing.T) {
	for form, want := range map[meshsim.LifetimeForm]string{
		meshsim.LifetimeSeconds: "3600", meshsim.LifetimeNull: "null", meshsim.LifetimeZero: "0", meshsim.LifetimeAbsent: "",
	} {
		t.Run(string(form), func(t *testing.T) {
			b := newBench(t)
			i := meshsim.Institution{AccessLifetime: time.Hour, RefreshLifetime: time.Hour, LifetimeForm: form}
			c, err := b.Connect(meshsim.ConnectSpec{BrokerType: "coinbase", Institution: &i})
			require.NoError(t, err)
			_, raw := decodePayload(t, c)
			for _, field := range []string{"expiresInSeconds", "refreshTokenExpiresInSeconds"} {
				require.Equal(t, want, string(raw["accessToken"][field]))
			}
			r := b.renew(c.Accounts[0].RefreshToken.Reveal())
			var answer struct{ Content map[string]json.RawMessage }
			require.NoError(t, json.Unmarshal(r.raw, &answer))
			for _, field := range []string{"expiresInSeconds", "refreshTokenExpiresInSeconds"} {
				require.Equal(t, want, string(answer.Content[field]))
			}
			b.clock.Advance(time.Hour)
			b.requireAccess(r.access(0), "expired")
		})
	}
}

func TestReconnect(t *testing.T) {
	b := newBench(t)
	spec := meshsim.ConnectSpec{BrokerType: "coinbase", Accounts: []meshsim.Account{{ID: "a1", Name: "Main"}}}
	one, err := b.Connect(spec)
	require.NoError(t, err)
	two, err := b.Connect(spec)
	require.NoError(t, err)
	p, _ := decodePayload(t, one)
	require.Nil(t, p.AccessToken.AccountTokens[0].Account.IsReconnected)
	p, _ = decodePayload(t, two)
	require.True(t, *p.AccessToken.AccountTokens[0].Account.IsReconnected)
	require.Equal(t, two.Accounts[0].Chain, b.chain("a1").ID)
	for _, c := range []meshsim.Connection{one, two} {
		found, ok := b.Ledger().ChainOf(c.Accounts[0].RefreshToken)
		require.True(t, ok)
		require.Equal(t, c.Accounts[0].Chain, found.ID)
		found, ok = b.Ledger().ChainOf(c.Accounts[0].AccessToken)
		require.True(t, ok)
		require.Equal(t, c.Accounts[0].Chain, found.ID)
		require.Equal(t, "succeeded", b.renew(c.Accounts[0].RefreshToken.Reveal()).Content.Status)
	}
}

func TestInstitutionsByBrokerType(t *testing.T) {
	b := newBench(t, func(c *meshsim.Config) {
		c.Institutions = map[string]meshsim.Institution{"newBank": {Rotation: meshsim.RotateNever}}
	})
	c, err := b.Connect(meshsim.ConnectSpec{BrokerType: "newBank"})
	require.NoError(t, err)
	first := c.Accounts[0].RefreshToken.Reveal()
	require.Equal(t, first, b.renew(first, body{"type": "newBank"}).refresh())
	_, err = b.Connect(meshsim.ConnectSpec{BrokerType: "tdAmeritrade", Accounts: accounts()})
	require.NoError(t, err)
	require.Equal(t, meshsim.RotateOnRequest, b.chain("a1").Institution.Rotation)
}

func TestUnknownTokensHaveNoChain(t *testing.T) {
	b := newBench(t)
	b.requireAccess(secret.New("unknown"), "unknown")
	b.requireAccess(secret.Text{}, "unknown")
	l := b.Ledger()
	_, ok := l.ChainOf(secret.New("unknown"))
	require.False(t, ok)
	_, ok = l.Chain("unknown")
	require.False(t, ok)
	_, why := l.RefreshTokenState(secret.New("unknown"))
	require.Equal(t, "unknown", why)
}
