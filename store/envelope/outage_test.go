package envelope_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/store/envelope"
)

var outages = map[string]kmssim.Fault{
	"throttled": kmssim.Throttling, "down": kmssim.ServiceUnavailable, "hangs up": kmssim.Disconnect,
	"internal": kmssim.Internal, "dependency": kmssim.DependencyTimeout, "key unavailable": kmssim.KeyUnavailable,
}

func TestKeysOpenLongerWhileKMSIsAway(t *testing.T) {
	for name, fault := range outages {
		f := newFixture(t)
		blob := seal(t, f.envelope(), "x")
		e := f.envelope()
		requireOpens(t, e, blob, "x")
		f.sim.Faults().Always(fault)
		f.clock.Advance(time.Hour + outage - 1)
		requireOpens(t, e, blob, "x")
		f.clock.Advance(1)
		_, err := e.Open(t.Context(), blob, binding)
		require.ErrorIs(t, err, envelope.ErrKMS, name)

		f.sim.Faults().Clear()
		f.clock.Advance(pause)
		requireOpens(t, e, blob, "x")
	}
}

func TestWithoutOutageNothingIsBridged(t *testing.T) {
	f := newFixture(t)
	o := f.options()
	o.Outage = 0
	e := newEnvelope(o)
	blob := seal(t, e, "x")
	f.sim.Faults().Always(kmssim.ServiceUnavailable)
	f.clock.Advance(time.Hour)
	_, err := e.Open(t.Context(), blob, binding)
	require.ErrorIs(t, err, envelope.ErrKMS)
	f.clock.Advance(23 * time.Hour)
	_, err = e.Sealer(t.Context(), "user")
	require.ErrorIs(t, err, envelope.ErrKMS)
}

// refusals are the ways in which an operator turns off a key.
func refusals(t *testing.T, f *fixture) map[string]func() (undo func()) {
	kek, err := f.sim.CreateKey(alias)
	require.NoError(t, err)
	return map[string]func() func(){
		"permission taken away": func() func() {
			f.sim.Faults().Always(kmssim.AccessDenied)
			return f.sim.Faults().Clear
		},
		"disabled": func() func() {
			_, err := f.client.DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: &kek})
			require.NoError(t, err)
			return func() {
				_, err := f.client.EnableKey(t.Context(), &kms.EnableKeyInput{KeyId: &kek})
				require.NoError(t, err)
			}
		},
	}
}

func TestARefusalIsNeverBridged(t *testing.T) {
	for name := range refusals(t, newFixture(t)) {
		for _, awayBefore := range []bool{false, true} {
			f := newFixture(t)
			e := f.envelope()
			blob := seal(t, e, "x")
			f.clock.Advance(24 * time.Hour)
			requireOpens(t, e, blob, "x")
			f.clock.Advance(time.Hour)
			if awayBefore {
				f.sim.Faults().Always(kmssim.ServiceUnavailable)
				requireOpens(t, e, blob, "x")
				require.Equal(t, blob.KeyID, seal(t, e, "y").KeyID)
				f.sim.Faults().Clear()
				f.clock.Advance(pause)
			}
			undo := refusals(t, f)[name]()
			if awayBefore { // stale keys serve at once, until the try beside has brought the news
				require.Eventually(t, func() bool {
					_, openErr := e.Open(t.Context(), blob, binding)
					_, sealErr := e.Sealer(t.Context(), "user")
					return openErr != nil && sealErr != nil
				}, time.Minute, time.Millisecond)
			}
			_, err := e.Open(t.Context(), blob, binding)
			require.ErrorIs(t, err, envelope.ErrKMS, name)
			require.Zero(t, e.CachedKeys())
			_, err = e.Sealer(t.Context(), "user")
			require.ErrorIs(t, err, envelope.ErrKMS, name)
			collect(t, e, 0)

			// When KMS can't be reached after that, there is nothing to go on with.
			undo()
			f.sim.Faults().Always(kmssim.Disconnect)
			f.clock.Advance(pause)
			_, err = e.Open(t.Context(), blob, binding)
			require.ErrorIs(t, err, envelope.ErrKMS, name)

			f.sim.Faults().Clear()
			f.clock.Advance(pause)
			requireOpens(t, e, blob, "x")
			seal(t, e, "y")
		}
	}
}

func TestWhileKMSIsAwayItIsAskedSeldom(t *testing.T) {
	f := newFixture(t)
	e := f.envelope()
	stale := seal(t, e, "x")
	other := seal(t, f.envelope(), "y")
	f.clock.Advance(time.Hour)
	f.sim.Faults().Always(kmssim.ServiceUnavailable)
	requireOpens(t, e, stale, "x")
	require.Equal(t, 1, f.decrypted())
	for _, length := range []int{1, 2, 4, 8, 16, 30, 30} {
		before := f.decrypted()
		f.clock.Advance(time.Duration(length)*time.Second - 1)
		for range 10 {
			requireOpens(t, e, stale, "x")
			_, err := e.Open(t.Context(), other, binding)
			require.ErrorIs(t, err, envelope.ErrKMS)
		}
		require.Equal(t, before, f.decrypted(), "%d s", length)
		f.clock.Advance(1)
		_, err := e.Open(t.Context(), other, binding)
		require.ErrorIs(t, err, envelope.ErrKMS)
		require.Equal(t, before+1, f.decrypted(), "%d s", length)
	}
	f.sim.Faults().Clear()
	f.clock.Advance(30 * time.Second)
	requireOpens(t, e, other, "y")
	third := seal(t, f.envelope(), "z")
	f.sim.Faults().Next(1, kmssim.Internal)
	_, err := e.Open(t.Context(), third, binding)
	require.ErrorIs(t, err, envelope.ErrKMS)
	f.clock.Advance(time.Second) // the shortest pause again
	requireOpens(t, e, third, "z")
}

func TestStaleKeysServeWithoutWaitingForKMS(t *testing.T) {
	f := newFixture(t)
	o := f.options()
	hanging, release := make(chan struct{}, 10), make(chan struct{})
	hang := false
	o.KMS = hooked{KMS: f.client, before: func(context.Context, string) error {
		if !hang {
			return nil
		}
		hanging <- struct{}{}
		<-release
		return errors.New("timeout")
	}}
	e := newEnvelope(o)
	blob := seal(t, e, "x")
	f.sim.Faults().Always(kmssim.Disconnect)
	f.clock.Advance(24 * time.Hour) // past both ages; the key is unwrapped again first
	f.sim.Faults().Clear()
	requireOpens(t, e, blob, "x")
	f.clock.Advance(time.Hour)
	f.sim.Faults().Always(kmssim.Disconnect)
	requireOpens(t, e, blob, "x")
	require.Equal(t, blob.KeyID, seal(t, e, "y").KeyID)
	hang = true
	f.clock.Advance(pause)
	requireOpens(t, e, blob, "x")
	require.Equal(t, blob.KeyID, seal(t, e, "y").KeyID)
	<-hanging // both are asked for beside
	<-hanging
	requireOpens(t, e, blob, "x")
	close(release)
}

// One KMS key that is away says nothing about another.
func TestTheOldKMSKeyIsAwayTheNewIsNot(t *testing.T) {
	f := newFixture(t)
	old := seal(t, f.envelope(), "x")
	_, err := f.sim.CreateKey("alias/next")
	require.NoError(t, err)
	o := f.options()
	o.KeyID = "alias/next"
	e := newEnvelope(o)
	f.sim.Faults().Always(kmssim.KeyUnavailable, "Decrypt")
	_, err = e.Open(t.Context(), old, binding)
	require.ErrorIs(t, err, envelope.ErrKMS)
	requireOpens(t, e, seal(t, e, "y"), "y")
}

// proxy answers in the place of KMS.
type proxy int

func (p proxy) Do(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: int(p), Body: http.NoBody, Header: http.Header{}}, nil
}

func TestWhatAProxyAnswersIsNoRefusal(t *testing.T) {
	f := newFixture(t)
	e := f.envelope()
	blob := seal(t, e, "x")
	for _, status := range []int{http.StatusForbidden, http.StatusBadGateway, http.StatusProxyAuthRequired} {
		o := f.options()
		client := f.client
		o.KMS = switching{&client}
		e := newEnvelope(o)
		requireOpens(t, e, blob, "x")
		f.clock.Advance(time.Hour)
		client = kms.New(f.client.Options(), func(o *kms.Options) { o.HTTPClient = proxy(status) })
		requireOpens(t, e, blob, "x")
	}
}

// switching is a KMS client that can be exchanged.
type switching struct{ to **kms.Client }

func (s switching) GenerateDataKey(ctx context.Context, in *kms.GenerateDataKeyInput, opts ...func(*kms.Options)) (*kms.GenerateDataKeyOutput, error) {
	return (*s.to).GenerateDataKey(ctx, in, opts...)
}

func (s switching) Decrypt(ctx context.Context, in *kms.DecryptInput, opts ...func(*kms.Options)) (*kms.DecryptOutput, error) {
	return (*s.to).Decrypt(ctx, in, opts...)
}

func TestTheSDKsAdaptiveRetriesDealWithThrottling(t *testing.T) {
	f := newFixture(t)
	o := f.options()
	// As a worker's, but for the time that retries take.
	o.KMS = kms.New(f.client.Options(), func(o *kms.Options) {
		o.RetryMaxAttempts = 3
		o.Retryer = retry.NewAdaptiveMode(func(m *retry.AdaptiveModeOptions) {
			m.RequestCost = 0
			m.StandardOptions = append(m.StandardOptions, func(s *retry.StandardOptions) {
				s.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
			})
		})
	})
	var told []error
	o.OnKMS = func(_ string, err error) { told = append(told, err) }
	e := newEnvelope(o)
	f.sim.Faults().Next(2, kmssim.Throttling)
	blob := seal(t, e, "x")
	f.sim.Faults().Next(2, kmssim.Throttling)
	f.clock.Advance(time.Hour)
	requireOpens(t, e, blob, "x")
	require.Equal(t, []error{nil, nil}, told)
	require.Equal(t, []int{3, 3}, []int{f.generated(), f.decrypted()})
}

func TestAStoredKeyThatKMSCallsInvalidIsTold(t *testing.T) {
	f := newFixture(t)
	blob := seal(t, f.envelope(), "x")
	key := f.keys.All()[blob.KeyID]
	for _, wrapped := range [][]byte{nil, make([]byte, 10_000)} {
		changed := key
		changed.Wrapped = wrapped
		f.keys.Put(changed)
		requireKeyFault(t, f, blob, "length")
	}
}
