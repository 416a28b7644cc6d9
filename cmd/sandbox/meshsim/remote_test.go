package meshsim_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events/secret"
)

func (b *bench) remote() meshsim.Remote {
	return meshsim.Remote{URL: b.url, ClientID: clientID, ClientSecret: secret.New(clientSecret), HTTP: b.client}
}

func TestRemote(t *testing.T) {
	b := newBench(t)
	r, ctx := b.remote(), t.Context()

	i := meshsim.Institution{Grace: time.Minute, AccessLifetime: 90 * time.Second}
	c, err := r.Connect(ctx, meshsim.ConnectSpec{BrokerType: "coinbase", Accounts: accounts(), Institution: &i})
	require.NoError(t, err)
	p, _ := decodePayload(t, c)
	first := c.Accounts[0].RefreshToken.Reveal()
	require.Equal(t, first, p.AccessToken.AccountTokens[0].RefreshToken)
	require.Equal(t, i, b.chain("a1").Institution)

	fault := meshsim.Fault{BrokerType: "coinbase", Count: 3, Action: meshsim.HTTPStatus(503).WithRetryAfter(90 * time.Second)}
	ids, err := r.Inject(ctx, fault, meshsim.Fault{Action: meshsim.Delay(0, time.Nanosecond), Probability: 0.5})
	require.NoError(t, err)
	faults, err := r.Faults(ctx)
	require.NoError(t, err)
	require.Len(t, faults, 2)
	fault.ID = ids[0]
	require.Equal(t, fault, faults[0])
	require.Equal(t, "90", b.renew(first).header.Get("Retry-After"))
	require.NoError(t, r.ClearFaults(ctx, ids[0]))
	require.Len(t, b.Faults(), 1)
	require.NoError(t, r.ClearFaults(ctx))
	require.Empty(t, b.Faults())

	require.NoError(t, r.Script(ctx, "a1", meshsim.Drop()))
	b.lose(first)
	l, err := r.Ledger(ctx)
	require.NoError(t, err)
	sameLedger(t, b.Ledger(), l)
	require.Len(t, l.UndeliveredAnswers(), 1)
	valid, why := l.RefreshTokenState(c.Accounts[0].RefreshToken)
	require.False(t, valid)
	require.Equal(t, "replaced", why)

	require.NoError(t, r.Alter(ctx, "a1", meshsim.Institution{Rotation: meshsim.RotateNever, TolerateReuse: true}))
	require.True(t, b.chain("a1").Institution.TolerateReuse)
	require.NoError(t, r.Kill(ctx, "a1"))
	require.False(t, b.chain("a1").Alive())
	l, err = r.Ledger(ctx)
	require.NoError(t, err)
	valid, _ = l.AccessTokenState(c.Accounts[0].AccessToken)
	require.False(t, valid)
}

func TestRemoteErrors(t *testing.T) {
	b := newBench(t)
	r, ctx := b.remote(), t.Context()
	_, err := r.Connect(ctx, meshsim.ConnectSpec{})
	require.ErrorContains(t, err, "broker type")
	_, err = r.Inject(ctx, meshsim.Fault{})
	require.ErrorContains(t, err, "unknown kind")
	require.ErrorContains(t, r.Script(ctx, "nobody", meshsim.Normal()), "nobody")
	require.ErrorContains(t, r.Kill(ctx, "nobody"), "nobody")
	require.ErrorContains(t, r.Alter(ctx, "nobody", meshsim.Institution{}), "nobody")
	require.Equal(t, http.StatusBadRequest, b.do(http.MethodDelete, "/sim/faults?id=x", nil).code)
	require.Equal(t, http.StatusBadRequest, b.do(http.MethodPost, "/sim/script", body{"acount": "typo"}).code)
	require.Equal(t, http.StatusBadRequest, b.do(http.MethodPost, "/sim/connect", body{"brokerType": "x", "institution": body{"grace": "soon"}}).code)

	r.ClientSecret = secret.New("wrong")
	_, err = r.Ledger(ctx)
	require.ErrorContains(t, err, "401")
	require.NotContains(t, err.Error(), "wrong")
	r.URL = "http://127.0.0.1:1"
	_, err = r.Faults(ctx)
	require.Error(t, err)
}
