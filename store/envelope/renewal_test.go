package envelope_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/store/envelope"
)

func TestAKeyIsRenewedAtMaxAge(t *testing.T) {
	f := newFixture(t)
	e := f.envelope()
	first := seal(t, e, "one")
	f.clock.Advance(24*time.Hour - 1)
	require.Equal(t, first.KeyID, seal(t, e, "two").KeyID)
	f.clock.Advance(1)
	require.NotEqual(t, first.KeyID, seal(t, e, "three").KeyID)
	require.Equal(t, 2, f.generated())
	requireOpens(t, e, first, "one")
}

func TestAKeyIsRenewedAtMaxSets(t *testing.T) {
	f := newFixture(t)
	o := f.options()
	o.MaxSets = 3
	e := newEnvelope(o)
	count := map[string]int{}
	for range 7 {
		count[seal(t, e, "x").KeyID]++
	}
	require.Equal(t, 3, f.generated())
	for _, n := range count {
		require.LessOrEqual(t, n, 3)
	}
}

func TestAKeyIsRenewedAtMaxBytes(t *testing.T) {
	f := newFixture(t)
	o := f.options()
	o.MaxBytes = 10
	e := newEnvelope(o)
	first := seal(t, e, "123456789")
	require.Equal(t, first.KeyID, seal(t, e, "1").KeyID)
	require.NotEqual(t, first.KeyID, seal(t, e, "1").KeyID)
	require.Equal(t, 2, f.generated())
}

func TestKMSCallsPerMillionSets(t *testing.T) {
	f := newFixture(t)
	e := f.envelope()
	plaintext := []byte("x")
	last := map[string]envelope.Blob{}
	const sets = 1<<20 + 10
	for i := range sets {
		s, err := e.Sealer(t.Context(), users[i%len(users)])
		if err != nil {
			t.Fatal(err)
		}
		blob := s.Seal(plaintext, binding)
		last[blob.KeyID] = blob
	}
	require.Equal(t, 2, f.generated(), "a key for the first 2^20 sets, one for the rest")
	for _, blob := range last {
		requireOpens(t, f.envelope(), blob, "x")
	}
	require.LessOrEqual(t, f.generated()+f.decrypted(), 100)
}

var users = func() []string {
	out := make([]string, 1000)
	for i := range out {
		out[i] = fmt.Sprintf("user-%d", i)
	}
	return out
}()

func TestWithoutKMSNothingIsSealed(t *testing.T) {
	for name, fault := range map[string]kmssim.Fault{
		"throttled": kmssim.Throttling, "down": kmssim.ServiceUnavailable, "hangs up": kmssim.Disconnect,
		"internal": kmssim.Internal, "dependency": kmssim.DependencyTimeout, "key unavailable": kmssim.KeyUnavailable,
	} {
		f := newFixture(t)
		var told []error
		o := f.options()
		o.OnKMS = func(operation string, err error) {
			require.Equal(t, "GenerateDataKey", operation)
			told = append(told, err)
		}
		e := newEnvelope(o)
		f.sim.Faults().Always(fault)
		_, err := e.Sealer(t.Context(), "user")
		require.ErrorIs(t, err, envelope.ErrKMS, name)
		require.Empty(t, f.keys.All(), name)

		f.sim.Faults().Clear()
		f.clock.Advance(pause)
		requireOpens(t, e, seal(t, e, "x"), "x")
		require.Len(t, told, 2, name)
		require.Error(t, told[0])
		require.NoError(t, told[1])
	}
}

func TestAWrongKEKIsTold(t *testing.T) {
	f := newFixture(t)
	o := f.options()
	o.KeyID = "alias/none"
	_, err := newEnvelope(o).Sealer(t.Context(), "user")
	require.ErrorIs(t, err, envelope.ErrKMS)
	require.ErrorContains(t, err, "NotFoundException")
}

func TestAKeyThatIsNotStoredDoesNotSeal(t *testing.T) {
	f := newFixture(t)
	e := f.envelope()
	down := errors.New("database down")
	f.keys.FailWith(down)
	_, err := e.Sealer(t.Context(), "user")
	require.ErrorIs(t, err, down)
	require.NotErrorIs(t, err, envelope.ErrKMS)

	f.keys.FailWith(nil)
	blob := seal(t, e, "x")
	require.Contains(t, f.keys.All(), blob.KeyID)
	require.Equal(t, 2, f.generated(), "the key that was not stored is not used")
}

func TestAnOldKeyGoesOnWhileThereIsNoNewOne(t *testing.T) {
	f := newFixture(t)
	e := f.envelope()
	first := seal(t, e, "one")
	f.sim.Faults().Always(kmssim.ServiceUnavailable)
	f.clock.Advance(24 * time.Hour)
	require.Equal(t, first.KeyID, seal(t, e, "two").KeyID)
	f.clock.Advance(outage - 1)
	require.Equal(t, first.KeyID, seal(t, e, "three").KeyID)
	f.clock.Advance(1)
	_, err := e.Sealer(t.Context(), "user")
	require.ErrorIs(t, err, envelope.ErrKMS)

	f.sim.Faults().Clear()
	f.clock.Advance(pause)
	require.NotEqual(t, first.KeyID, seal(t, e, "four").KeyID)
}

func TestAFullKeyDoesNotGoOn(t *testing.T) {
	f := newFixture(t)
	o := f.options()
	o.MaxSets = 1
	e := newEnvelope(o)
	seal(t, e, "one")
	f.sim.Faults().Always(kmssim.ServiceUnavailable)
	_, err := e.Sealer(t.Context(), "user")
	require.ErrorIs(t, err, envelope.ErrKMS)
}

func TestASealerAtHandNeedsNoKMS(t *testing.T) {
	f := newFixture(t)
	e := f.envelope()
	s, err := e.Sealer(t.Context(), "user")
	require.NoError(t, err)
	f.sim.Faults().Always(kmssim.Disconnect)
	f.clock.Advance(1000 * time.Hour)
	blob := s.Seal([]byte("the answer of a spent token"), binding)
	f.sim.Faults().Clear()
	requireOpens(t, f.envelope(), blob, "the answer of a spent token")
}

func TestAHangingKMSIsGivenUp(t *testing.T) {
	f := newFixture(t)
	o := f.options()
	o.Timeout = time.Millisecond
	o.KMS = hooked{KMS: f.client, before: func(ctx context.Context, _ string) error {
		<-ctx.Done()
		return ctx.Err()
	}}
	_, err := newEnvelope(o).Sealer(t.Context(), "user")
	require.ErrorIs(t, err, envelope.ErrKMS)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestWithoutRandomnessNoKeyIsMade(t *testing.T) {
	f := newFixture(t)
	o := f.options()
	o.Rand = failing{}
	_, err := newEnvelope(o).Sealer(t.Context(), "user")
	require.ErrorIs(t, err, errNoRandomness)
	require.Zero(t, f.generated())
}

var errNoRandomness = errors.New("no randomness")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errNoRandomness }
