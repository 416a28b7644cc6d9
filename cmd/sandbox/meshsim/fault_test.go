package meshsim_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events/secret"
)

// requireUnspent requires that the institution has not seen the token yet.
func (b *bench) requireUnspent(id, token string) {
	b.t.Helper()
	c := b.chain(id)
	require.Equal(b.t, meshsim.FingerprintOf(secret.New(token)), c.Current().Fingerprint)
	require.Empty(b.t, c.Current().Presented)
	require.Equal(b.t, "succeeded", b.renew(token).Content.Status)
	require.Empty(b.t, b.Ledger().ReplacedPresented())
}

func TestFailureBeforeRotation(t *testing.T) {
	for _, code := range []int{401, 403, 429, 500, 502, 503} {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			b := newBench(t)
			id, first, _ := b.connect(standard())
			b.script(id, meshsim.HTTPStatus(code))
			r := b.renew(first)
			require.Equal(t, code, r.code)
			require.Empty(t, r.header.Get("Retry-After"))
			b.requireUnspent(id, first)
		})
	}
}

func TestRetryAfter(t *testing.T) {
	b := newBench(t)
	id, first, _ := b.connect(standard())
	b.script(id,
		meshsim.HTTPStatus(429).WithRetryAfter(90*time.Second),
		meshsim.HTTPStatus(503).WithRetryAfterDate(2*time.Minute),
		meshsim.MappedEnvelope(meshsim.StatusTooManyRequest).WithRetryAfter(time.Second))
	require.Equal(t, "90", b.renew(first).header.Get("Retry-After"))
	at, err := http.ParseTime(b.renew(first).header.Get("Retry-After"))
	require.NoError(t, err)
	require.Equal(t, b.clock.Now().Add(2*time.Minute), at)
	require.Equal(t, "1", b.renew(first).header.Get("Retry-After"))
	b.requireUnspent(id, first)
}

func TestResetBeforeRotation(t *testing.T) {
	b := newBench(t)
	id, first, _ := b.connect(standard())
	b.script(id, meshsim.Reset())
	_, err := b.try(http.MethodPost, refreshPath, renewal(first))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.NotEmpty(t, b.Ledger().Requests[0].Undelivered)
	b.requireUnspent(id, first)
}

// Every way in which an answer can be lost after the institution replaced the
// token leaves the same trace: a lost answer, and a retry that is nobody's fault.
func TestAnswerLostAfterRotation(t *testing.T) {
	for name, action := range map[string]meshsim.Action{
		"drop":  meshsim.Drop(),
		"cut":   meshsim.Cut(),
		"reset": meshsim.Reset().AfterWork(),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			i := standard()
			i.Grace = time.Minute
			id, first, _ := b.connect(i)
			b.script(id, action)
			b.lose(first)
			require.Len(t, b.chain(id).Refresh, 2)
			require.Len(t, b.Ledger().UndeliveredAnswers(), 1)
			require.Empty(t, b.Ledger().ReplacedPresented())

			retry := b.renew(first)
			require.Equal(t, "succeeded", retry.Content.Status)
			l := b.Ledger()
			require.True(t, l.ReplacedPresented()[0].Ambiguous)
			require.Empty(t, l.DoubleSpends())

			b.clock.Advance(time.Hour)
			require.Equal(t, "failed", b.renew(first).Content.Status)
			require.Len(t, b.Ledger().Violations(), 1, "the retry did bring the tokens")
		})
	}
}

func TestAmbiguousRetryWithoutGraceKillsTheChain(t *testing.T) {
	b := newBench(t)
	id, first, _ := b.connect(standard())
	b.script(id, meshsim.Drop())
	b.lose(first)
	require.Equal(t, "failed", b.renew(first).Content.Status)
	require.Equal(t, meshsim.DeadByReuse, b.chain(id).DeadBecause)
	l := b.Ledger()
	require.Len(t, l.ReplacedPresented(), 1)
	require.Empty(t, l.Violations())
}

func TestClientsTimeoutAfterRotation(t *testing.T) {
	for name, action := range map[string]meshsim.Action{
		"hang":  meshsim.Hang(),
		"delay": {Kind: meshsim.KindDelay, After: true, Min: time.Hour, Max: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			id, first, _ := b.connect(standard())
			b.script(id, action)
			hangUp, result := b.start(first)
			require.Eventually(t, func() bool { return len(b.chain(id).Refresh) == 2 }, time.Minute, time.Millisecond)
			require.False(t, b.Ledger().Requests[0].Delivered)
			hangUp()
			require.ErrorIs(t, <-result, context.Canceled)
			b.settle()
			require.Len(t, b.Ledger().UndeliveredAnswers(), 1)
		})
	}
}

func TestClientGoneBeforeTheInstitutionIsAsked(t *testing.T) {
	b := newBench(t)
	id, first, _ := b.connect(standard())
	b.script(id, meshsim.Delay(time.Hour, time.Hour))
	hangUp, result := b.start(first)
	require.Eventually(t, func() bool { return len(b.Ledger().Requests) == 1 }, time.Minute, time.Millisecond)
	hangUp()
	require.ErrorIs(t, <-result, context.Canceled)
	b.settle()
	require.Empty(t, b.Ledger().UndeliveredAnswers())
	b.requireUnspent(id, first)
}

func TestClientGoneWhenTheAnswerIsReady(t *testing.T) {
	b := newBench(t, func(c *meshsim.Config) {
		c.Sleep = func(ctx context.Context, _ time.Duration) error { <-ctx.Done(); return nil }
	})
	id, first, _ := b.connect(standard())
	b.script(id, meshsim.Delay(time.Hour, time.Hour).AfterWork())
	hangUp, result := b.start(first)
	require.Eventually(t, func() bool { return len(b.chain(id).Refresh) == 2 }, time.Minute, time.Millisecond)
	hangUp()
	require.Error(t, <-result)
	b.settle()
	require.Equal(t, "the client was gone", b.Ledger().UndeliveredAnswers()[0].Undelivered)
}

func TestAnotherAnswerAfterRotation(t *testing.T) {
	for name, action := range map[string]meshsim.Action{
		"gateway":  meshsim.HTTPStatus(502).AfterWork(),
		"envelope": meshsim.Envelope(meshsim.StatusServerFailure).AfterWork(),
		"garbage":  meshsim.Garbage().AfterWork(),
		"failed":   meshsim.Failed("lost").AfterWork(),
		"huge":     meshsim.Huge(1 << 20).AfterWork(),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			id, first, _ := b.connect(standard())
			b.script(id, action)
			r := b.renew(first)
			require.False(t, r.code == 200 && r.Content != nil && r.Content.Status == "succeeded")
			b.settle()
			require.Len(t, b.chain(id).Refresh, 2)
			require.Len(t, b.Ledger().UndeliveredAnswers(), 1)
			require.Equal(t, "failed", b.renew(first).Content.Status)
			require.Empty(t, b.Ledger().Violations())
		})
	}
}

func TestEnvelopes(t *testing.T) {
	for status, code := range map[string]int{
		meshsim.StatusServerFailure: 500, meshsim.StatusPermissionDenied: 403, meshsim.StatusBadRequest: 400, meshsim.StatusNotFound: 404,
		meshsim.StatusConflict: 409, meshsim.StatusTooManyRequest: 429, meshsim.StatusLocked: 423, meshsim.StatusUnavailableForLegalReasons: 451,
	} {
		t.Run(status, func(t *testing.T) {
			b := newBench(t)
			id, first, _ := b.connect(standard())
			plain := meshsim.Envelope(status)
			plain.Message, plain.ErrorType = "a message", "aType"
			b.script(id, plain, meshsim.MappedEnvelope(status))

			r := b.renew(first)
			require.Equal(t, http.StatusOK, r.code)
			require.Equal(t, status, r.Status)
			require.Equal(t, "a message", *r.Message)
			require.Equal(t, "aType", *r.ErrorType)
			require.Nil(t, r.Content)

			r = b.renew(first)
			require.Equal(t, code, r.code)
			require.Equal(t, status, r.Status)
			require.Nil(t, r.ErrorType)
			b.requireUnspent(id, first)
		})
	}
}

func TestContentStatuses(t *testing.T) {
	b := newBench(t)
	id, first, access := b.connect(standard())
	b.script(id, meshsim.Failed("try later"), meshsim.MFARequired(), meshsim.Normal(), meshsim.Killed("consent withdrawn"))

	r := b.renew(first)
	require.Equal(t, "failed", r.Content.Status)
	require.Equal(t, "try later", *r.Content.ErrorMessage)
	r = b.renew(first)
	require.Equal(t, "mfaRequired", r.Content.Status)
	b.requireAccess(r.access(0), "interim")
	r = b.renew(first)
	require.Equal(t, "succeeded", r.Content.Status)
	require.Equal(t, "consent withdrawn", *b.renew(r.refresh()).Content.ErrorMessage)
	require.Equal(t, meshsim.DeadByFault, b.chain(id).DeadBecause)
	b.requireAccess(access, meshsim.DeadByFault)
}

func TestOddBodies(t *testing.T) {
	b := newBench(t)
	id, first, _ := b.connect(standard())
	b.script(id, meshsim.Garbage(), meshsim.Huge(3<<20), meshsim.Speak("unknownMembers"), meshsim.OmitRefreshToken())

	r := b.renew(first)
	require.Equal(t, http.StatusOK, r.code)
	require.False(t, json.Valid(r.raw))

	r = b.renew(first)
	require.GreaterOrEqual(t, len(r.raw), 3<<20)
	require.True(t, json.Valid(r.raw))

	r = b.renew(first)
	require.Equal(t, "succeeded", r.Content.Status)
	var extra struct {
		XNew    any
		Content struct{ XNew any }
	}
	require.NoError(t, json.Unmarshal(r.raw, &extra))
	require.NotNil(t, extra.XNew)
	require.NotNil(t, extra.Content.XNew)
	second := r.refresh()

	r = b.renew(second)
	require.Empty(t, r.refresh())
	b.requireAccess(r.access(0), "")
	require.Empty(t, b.Ledger().UndeliveredAnswers())

	deprecated := standard()
	deprecated.DeprecatedAnswer = true
	require.NoError(t, b.Alter(id, deprecated))
	r = b.renew(second)
	require.Nil(t, r.Content.BrokerAccountTokens)
	require.NotEmpty(t, *r.Content.RefreshToken)
	require.Empty(t, b.Ledger().ReplacedPresented())
}

func TestFaultsMatch(t *testing.T) {
	b := newBench(t)
	id, first, access := b.connect(standard())
	c, err := b.Connect(meshsim.ConnectSpec{BrokerType: "kraken"})
	require.NoError(t, err)
	kraken := c.Accounts[0].RefreshToken.Reveal()
	inject := func(f meshsim.Fault) {
		f.Action = meshsim.HTTPStatus(503)
		_, err := b.Inject(f)
		require.NoError(t, err)
	}

	inject(meshsim.Fault{BrokerType: "kraken"})
	require.Equal(t, 200, b.renew("unknown").code)
	require.Equal(t, 503, b.renew(kraken, body{"type": "kraken"}).code)
	b.ClearFaults()
	require.Empty(t, b.Faults())

	inject(meshsim.Fault{AccountID: id})
	require.Equal(t, 503, b.renew(first).code)
	require.Equal(t, 503, b.do(http.MethodDelete, accountPath, body{"type": "coinbase", "authToken": access.Reveal()}).code)
	require.Equal(t, 200, b.renew(kraken, body{"type": "kraken"}).code)
	b.ClearFaults()

	inject(meshsim.Fault{Operation: meshsim.OpRemove})
	require.Equal(t, 503, b.do(http.MethodDelete, accountPath, body{"type": "coinbase", "authToken": access.Reveal()}).code)
	require.Equal(t, 200, b.renew(first).code)
}

func TestFaultsAreSpent(t *testing.T) {
	b := newBench(t)
	_, first, _ := b.connect(standard())
	ids, err := b.Inject(meshsim.Fault{Count: 2, Action: meshsim.HTTPStatus(500)}, meshsim.Fault{Action: meshsim.HTTPStatus(502)})
	require.NoError(t, err)
	require.Equal(t, 500, b.renew(first).code)
	require.Equal(t, 1, b.Faults()[0].Count)
	require.Equal(t, 500, b.renew(first).code)
	require.Equal(t, 502, b.renew(first).code)
	b.ClearFaults(ids[1])
	require.Empty(t, b.Faults())
	require.Equal(t, 200, b.renew(first).code)
}

func TestProbabilityIsSeeded(t *testing.T) {
	hits := func(seed string) (out []bool) {
		b := newBench(t, func(c *meshsim.Config) { c.Seed = secret.New(seed) })
		_, err := b.Inject(meshsim.Fault{Probability: 0.5, Action: meshsim.HTTPStatus(500)})
		require.NoError(t, err)
		for range 64 {
			out = append(out, b.renew("unknown").code == 500)
		}
		return out
	}
	one := hits("a")
	require.Equal(t, one, hits("a"))
	require.NotEqual(t, one, hits("b"))
	require.Contains(t, one, true)
	require.Contains(t, one, false)
}

func TestDelays(t *testing.T) {
	var (
		mu    sync.Mutex
		slept []time.Duration
	)
	b := newBench(t, func(c *meshsim.Config) {
		c.Sleep = func(_ context.Context, d time.Duration) error {
			mu.Lock()
			defer mu.Unlock()
			slept = append(slept, d)
			return nil
		}
	})
	id, first, _ := b.connect(standard())
	_, err := b.Inject(
		meshsim.Fault{Count: 1, Action: meshsim.Delay(time.Second, time.Second)},
		meshsim.Fault{Count: 1, Action: meshsim.Delay(time.Second, time.Second)},
		meshsim.Fault{Count: 1, Action: meshsim.Delay(time.Minute, time.Minute).AfterWork()},
		meshsim.Fault{Count: 1, Action: meshsim.HTTPStatus(500)})
	require.NoError(t, err)
	require.Equal(t, 500, b.renew(first).code)
	require.Equal(t, []time.Duration{2 * time.Second, time.Minute}, slept)
	b.requireUnspent(id, first)

	_, err = b.Inject(meshsim.Fault{Action: meshsim.Delay(time.Second, 2*time.Second)})
	require.NoError(t, err)
	slept = nil
	for range 20 {
		b.renew("unknown")
	}
	require.Len(t, slept, 20)
	for _, d := range slept {
		require.True(t, d >= time.Second && d <= 2*time.Second)
	}
	require.NotEqual(t, slept[0], slept[1])
}

func TestNonsenseIsRefused(t *testing.T) {
	b := newBench(t)
	id, _, _ := b.connect(standard())
	for _, a := range []meshsim.Action{
		{},
		{Kind: "x"},
		meshsim.HTTPStatus(200), meshsim.HTTPStatus(600), meshsim.Envelope("ok"), meshsim.Envelope("x"),
		meshsim.Delay(time.Second, 0), meshsim.Delay(-1, 0),
	} {
		require.Error(t, b.Script(id, a))
		_, err := b.Inject(meshsim.Fault{Action: a})
		require.Error(t, err)
	}
	for _, f := range []meshsim.Fault{{Count: -1}, {Probability: 2}, {Probability: -1}, {Operation: "x"}} {
		f.Action = meshsim.Normal()
		_, err := b.Inject(f)
		require.Error(t, err)
	}
	_, err := b.Connect(meshsim.ConnectSpec{})
	require.Error(t, err)
	_, err = meshsim.New(meshsim.Config{})
	require.Error(t, err)
}
