package meshsim_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events/secret"
)

var day = 24 * time.Hour

func standard() meshsim.Institution { return meshsim.DefaultInstitution("coinbase") }

func TestRotation(t *testing.T) {
	b := newBench(t)
	id, first, access := b.connect(standard())

	r := b.renew(first)
	require.Equal(t, http.StatusOK, r.code)
	require.Equal(t, "ok", r.Status)
	require.Equal(t, "succeeded", r.Content.Status)
	require.NotEqual(t, first, r.refresh())
	require.Equal(t, int32(3600), *r.Content.ExpiresInSeconds)
	require.Equal(t, int32(90*24*3600), *r.Content.RefreshTokenExpiresInSeconds)
	require.Nil(t, r.Content.AccessToken)
	b.requireAccess(access, "")
	b.requireAccess(r.access(0), "")

	r2 := b.renew(r.refresh())
	require.Equal(t, "succeeded", r2.Content.Status)

	c := b.chain(id)
	require.True(t, c.Alive())
	require.Len(t, c.Refresh, 3)
	require.Equal(t, 1, c.Refresh[0].ReplacedIn)
	require.Equal(t, []int{1}, c.Refresh[0].Presented)
	require.Equal(t, 1, c.Refresh[1].IssuedIn)
	require.Zero(t, c.Current().ReplacedIn)
	require.Equal(t, meshsim.FingerprintOf(secret.New(r2.refresh())), c.Current().Fingerprint)
	l := b.Ledger()
	require.Empty(t, l.ReplacedPresented())
	require.Empty(t, l.UndeliveredAnswers())
	require.True(t, l.Requests[0].Delivered)
	require.True(t, l.Requests[0].Rotated)
}

func TestReuseKillsTheChain(t *testing.T) {
	b := newBench(t)
	id, first, access := b.connect(standard())
	r := b.renew(first)

	again := b.renew(first)
	require.Equal(t, http.StatusOK, again.code)
	require.Equal(t, "failed", again.Content.Status)
	require.Empty(t, again.Content.BrokerAccountTokens)
	require.Equal(t, "failed", b.renew(r.refresh()).Content.Status)

	c := b.chain(id)
	require.False(t, c.Alive())
	require.Equal(t, meshsim.DeadByReuse, c.DeadBecause)
	require.Equal(t, 2, c.DiedIn)
	b.requireAccess(access, meshsim.DeadByReuse)
	b.requireAccess(r.access(0), meshsim.DeadByReuse)

	reuse := b.Ledger().Violations()
	require.Len(t, reuse, 1)
	require.Equal(t, 2, reuse[0].Request.ID)
	require.Equal(t, 1, reuse[0].ReplacedIn.ID)
	require.False(t, reuse[0].Overlapped)
	require.Len(t, b.Ledger().DoubleSpends(), 1)
}

func TestReuseCanBeTolerated(t *testing.T) {
	b := newBench(t)
	i := standard()
	i.TolerateReuse = true
	id, first, _ := b.connect(i)
	r := b.renew(first)
	require.Equal(t, "failed", b.renew(first).Content.Status)
	require.True(t, b.chain(id).Alive())
	require.Equal(t, "succeeded", b.renew(r.refresh()).Content.Status)
	require.Len(t, b.Ledger().Violations(), 1)
}

func TestGraceAnswersTheNewestTokens(t *testing.T) {
	b := newBench(t)
	i := standard()
	i.Grace = time.Minute
	id, first, _ := b.connect(i)
	r := b.renew(first)

	b.clock.Advance(time.Minute - time.Nanosecond)
	again := b.renew(first)
	require.Equal(t, "succeeded", again.Content.Status)
	require.Equal(t, r.refresh(), again.refresh())
	require.Equal(t, r.access(0), again.access(0))
	require.Equal(t, int32(3540), *again.Content.ExpiresInSeconds)
	require.Len(t, b.chain(id).Refresh, 2)

	l := b.Ledger()
	require.Empty(t, l.Violations())
	require.Len(t, l.DoubleSpends(), 1)
	require.True(t, l.ReplacedPresented()[0].WithinGrace)

	b.clock.Advance(time.Nanosecond)
	require.Equal(t, "failed", b.renew(first).Content.Status)
	require.False(t, b.chain(id).Alive())
	require.Len(t, b.Ledger().Violations(), 1)
}

// An access token that is over is not answered once more, nor one whose life is
// too short to be told: 0 means that it is not known.
func TestGraceAnswersNoAccessTokenThatIsOver(t *testing.T) {
	for _, passed := range []time.Duration{time.Minute - time.Second + time.Nanosecond, time.Minute, 2 * time.Minute} {
		t.Run(passed.String(), func(t *testing.T) {
			b := newBench(t)
			i := standard()
			i.Grace, i.AccessLifetime = time.Hour, time.Minute
			id, first, _ := b.connect(i)
			r := b.renew(first)
			b.clock.Advance(passed)
			again := b.renew(first)
			require.Equal(t, r.refresh(), again.refresh())
			require.NotEqual(t, r.access(0), again.access(0))
			require.Equal(t, int32(60), *again.Content.ExpiresInSeconds)
			require.Len(t, b.chain(id).Refresh, 2)
			require.Empty(t, b.Ledger().Violations())
		})
	}
}

func TestGraceCoversOnlyTheJustReplacedToken(t *testing.T) {
	b := newBench(t)
	i := standard()
	i.Grace = time.Hour
	id, first, _ := b.connect(i)
	b.renew(b.renew(first).refresh())
	require.Equal(t, "failed", b.renew(first).Content.Status)
	require.False(t, b.chain(id).Alive())
}

func TestGraceCanRotateAgain(t *testing.T) {
	b := newBench(t)
	i := standard()
	i.Grace, i.GraceMode = time.Minute, meshsim.GraceRotate
	id, first, _ := b.connect(i)
	r := b.renew(first)
	again := b.renew(first)
	require.NotEqual(t, r.refresh(), again.refresh())
	require.Len(t, b.chain(id).Refresh, 3)
	require.Equal(t, "succeeded", b.renew(again.refresh()).Content.Status)
}

func TestRotationOnRequest(t *testing.T) {
	b := newBench(t)
	i := standard()
	i.Rotation = meshsim.RotateOnRequest
	_, first, _ := b.connect(i)
	b.clock.Advance(day)

	kept := b.renew(first)
	require.Equal(t, first, kept.refresh())
	require.Equal(t, int32(89*24*3600), *kept.Content.RefreshTokenExpiresInSeconds)
	require.Equal(t, first, b.renew(first, body{"createNewRefreshToken": false}).refresh())

	renewed := b.renew(first, body{"createNewRefreshToken": true})
	require.NotEqual(t, first, renewed.refresh())
	require.Equal(t, int32(90*24*3600), *renewed.Content.RefreshTokenExpiresInSeconds)
	require.Equal(t, "failed", b.renew(first).Content.Status)
}

func TestNoRotation(t *testing.T) {
	b := newBench(t)
	i := standard()
	i.Rotation = meshsim.RotateNever
	_, first, _ := b.connect(i)
	for range 3 {
		require.Equal(t, first, b.renew(first, body{"createNewRefreshToken": true}).refresh())
	}
	require.Empty(t, b.Ledger().ReplacedPresented())
}

func TestAKeptRefreshTokenCanBeOmitted(t *testing.T) {
	b := newBench(t)
	i := standard()
	i.Rotation, i.OmitKeptRefreshToken = meshsim.RotateOnRequest, true
	_, first, _ := b.connect(i)
	require.Empty(t, b.renew(first).refresh())
	require.NotEmpty(t, b.renew(first, body{"createNewRefreshToken": true}).refresh())
}

func TestLifetimes(t *testing.T) {
	b := newBench(t)
	i := standard()
	i.RefreshLifetime = 3 * time.Hour
	id, first, access := b.connect(i)

	b.clock.Advance(time.Hour - time.Nanosecond)
	b.requireAccess(access, "")
	b.clock.Advance(time.Nanosecond)
	b.requireAccess(access, "expired")
	r := b.renew(first)
	b.requireAccess(r.access(0), "")

	b.clock.Advance(3 * time.Hour)
	require.Equal(t, meshsim.DeadByExpiry, b.chain(id).DeadBecause, "nobody asked yet")
	require.Equal(t, "failed", b.renew(r.refresh()).Content.Status)
	require.Equal(t, meshsim.DeadByExpiry, b.chain(id).DeadBecause)
	valid, why := b.Ledger().RefreshTokenState(secret.New(r.refresh()))
	require.False(t, valid)
	require.Equal(t, meshsim.DeadByExpiry, why)
}

func TestAccessTokensOutliveAnExpiredRefreshToken(t *testing.T) {
	b := newBench(t)
	id, first, access := b.connect(meshsim.Institution{AccessLifetime: 10 * time.Hour, RefreshLifetime: time.Hour})
	b.clock.Advance(time.Hour)
	require.Equal(t, "failed", b.renew(first).Content.Status)
	require.False(t, b.chain(id).Alive())
	b.requireAccess(access, "")
}

func TestLifetimesForEver(t *testing.T) {
	b := newBench(t)
	_, first, access := b.connect(meshsim.Institution{})
	b.clock.Advance(10000 * day)
	b.requireAccess(access, "")
	r := b.renew(first)
	require.Equal(t, "succeeded", r.Content.Status)
	require.Nil(t, r.Content.ExpiresInSeconds)
	require.Nil(t, r.Content.RefreshTokenExpiresInSeconds)
}

func TestOldAccessTokensCanBeRevoked(t *testing.T) {
	b := newBench(t)
	i := standard()
	i.RevokeOldAccess = true
	_, first, access := b.connect(i)
	r := b.renew(first)
	b.requireAccess(access, "replaced")
	b.requireAccess(r.access(0), "")
}

func TestDeprecatedAnswer(t *testing.T) {
	b := newBench(t)
	i := standard()
	i.DeprecatedAnswer = true
	id, first, _ := b.connect(i)
	r := b.renew(first)
	require.Nil(t, r.Content.BrokerAccountTokens)
	require.Equal(t, id, r.Content.Account.AccountID)
	b.requireAccess(secret.New(*r.Content.AccessToken), "")
	require.Equal(t, "succeeded", b.renew(*r.Content.RefreshToken).Content.Status)
}

func TestAccessTokenIsDemandedByItsBrokers(t *testing.T) {
	for _, broker := range []string{"weBull", "vanguard"} {
		t.Run(broker, func(t *testing.T) {
			b := newBench(t)
			c, err := b.Connect(meshsim.ConnectSpec{BrokerType: broker})
			require.NoError(t, err)
			other, err := b.Connect(meshsim.ConnectSpec{BrokerType: broker})
			require.NoError(t, err)
			token := c.Accounts[0].RefreshToken.Reveal()
			b.clock.Advance(2 * time.Hour) // an expired access token is good enough

			for _, access := range []any{nil, "", "unknown", other.Accounts[0].AccessToken.Reveal()} {
				r := b.renew(token, body{"type": broker, "accessToken": access})
				require.Equal(t, http.StatusBadRequest, r.code)
				require.Equal(t, "badRequest", r.Status)
				require.Nil(t, r.Content)
			}
			r := b.renew(token, body{"type": broker, "accessToken": c.Accounts[0].AccessToken.Reveal()})
			require.Equal(t, "succeeded", r.Content.Status)
			require.Equal(t, "succeeded", b.renew(r.refresh(), body{"type": broker, "accessToken": r.access(0).Reveal()}).Content.Status)
		})
	}
}

func TestMFA(t *testing.T) {
	b := newBench(t)
	i := standard()
	i.MFACode = "424242"
	id, first, _ := b.connect(i)

	r := b.renew(first)
	require.Equal(t, "mfaRequired", r.Content.Status)
	require.Empty(t, r.refresh())
	interim := r.access(0)
	b.requireAccess(interim, "interim")

	for _, second := range []body{
		{"mfaCode": "000000", "accessToken": interim.Reveal()},
		{"mfaCode": "424242"},
		{"mfaCode": "424242", "accessToken": "unknown"},
	} {
		require.Equal(t, "failed", b.renew(first, second).Content.Status)
	}
	require.True(t, b.chain(id).Alive())

	r = b.renew(first, body{"mfaCode": "424242", "accessToken": interim.Reveal()})
	require.Equal(t, "succeeded", r.Content.Status)
	b.requireAccess(interim, "used")
	require.Empty(t, b.Ledger().ReplacedPresented())
	require.Equal(t, "failed", b.renew(r.refresh(), body{"mfaCode": "424242", "accessToken": interim.Reveal()}).Content.Status)
}

func TestBadRequests(t *testing.T) {
	b := newBench(t)
	id, first, _ := b.connect(standard())
	for name, q := range map[string]any{
		"no type":        body{"refreshToken": first},
		"no token":       body{"type": "coinbase"},
		"empty token":    body{"type": "coinbase", "refreshToken": ""},
		"wrong type":     body{"type": "kraken", "refreshToken": first},
		"not an object":  []int{1},
		"number for str": body{"type": "coinbase", "refreshToken": 5},
	} {
		r := b.do(http.MethodPost, refreshPath, q)
		require.Equal(t, http.StatusBadRequest, r.code, name)
		require.Equal(t, "badRequest", r.Status, name)
		require.NotContains(t, string(r.raw), first)
	}
	require.Empty(t, b.chain(id).Refresh[0].Presented)
	require.Equal(t, "failed", b.renew("unknown").Content.Status)
	require.Equal(t, "succeeded", b.renew(first, body{"metadata": body{"a": "b", "c": nil}, "unknown": 1, "tradeToken": "t"}).Content.Status)
}

func TestRemoval(t *testing.T) {
	b := newBench(t)
	id, first, access := b.connect(standard())
	for _, q := range []body{{"type": "coinbase"}, {"authToken": access.Reveal()}, {"type": "kraken", "authToken": access.Reveal()}, {"type": "coinbase", "authToken": "unknown"}} {
		require.Equal(t, http.StatusBadRequest, b.do(http.MethodDelete, accountPath, q).code)
	}
	require.True(t, b.chain(id).Alive())

	remove := body{"type": "coinbase", "authToken": access.Reveal()}
	r := b.do(http.MethodDelete, accountPath, remove)
	require.Equal(t, http.StatusOK, r.code)
	require.Equal(t, "ok", r.Status)
	require.Equal(t, meshsim.DeadByRemoval, b.chain(id).DeadBecause)
	b.requireAccess(access, meshsim.DeadByRemoval)
	require.Equal(t, "failed", b.renew(first).Content.Status)
	require.Equal(t, http.StatusBadRequest, b.do(http.MethodDelete, accountPath, remove).code)
}

func TestRemovalNeedsALiveAccessToken(t *testing.T) {
	b := newBench(t)
	id, _, access := b.connect(standard())
	b.clock.Advance(time.Hour)
	require.Equal(t, http.StatusBadRequest, b.do(http.MethodDelete, accountPath, body{"type": "coinbase", "authToken": access.Reveal()}).code)
	require.True(t, b.chain(id).Alive())
}
