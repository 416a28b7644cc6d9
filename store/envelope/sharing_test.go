package envelope_test

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/store/envelope"
)

// crowd has n callers call at once: no KMS request goes on before all have
// started. It returns their errors.
func crowd(f *fixture, n int, call func(*envelope.Envelope) error) []error {
	var started sync.WaitGroup
	started.Add(n)
	o := f.options()
	o.KMS = hooked{KMS: f.client, before: func(context.Context, string) error {
		started.Wait()
		return nil
	}}
	e := newEnvelope(o)
	errs := make([]error, n)
	var done sync.WaitGroup
	for i := range n {
		done.Go(func() {
			started.Done()
			errs[i] = call(e)
		})
	}
	done.Wait()
	return errs
}

func TestConcurrentFirstUseMakesOneKey(t *testing.T) {
	f := newFixture(t)
	for _, err := range crowd(f, 64, func(e *envelope.Envelope) error {
		s, err := e.Sealer(t.Context(), "user")
		if err == nil {
			s.Seal([]byte("x"), binding)
		}
		return err
	}) {
		require.NoError(t, err)
	}
	require.Equal(t, 1, f.generated())
	require.Len(t, f.keys.All(), 1)
}

func TestConcurrentOpeningUnwrapsOnce(t *testing.T) {
	f := newFixture(t)
	blob := seal(t, f.envelope(), "x")
	for _, err := range crowd(f, 64, func(e *envelope.Envelope) error {
		_, err := e.Open(t.Context(), blob, binding)
		return err
	}) {
		require.NoError(t, err)
	}
	require.Equal(t, 1, f.decrypted())
}

func TestOneCallersEndDoesNotFailTheOthers(t *testing.T) {
	f := newFixture(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	o := f.options()
	o.KMS = hooked{KMS: f.client, before: func(ctx context.Context, _ string) error {
		close(arrived)
		<-release
		return ctx.Err()
	}}
	e := newEnvelope(o)

	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	sealer := func(ctx context.Context, out chan<- error) {
		_, err := e.Sealer(ctx, "user")
		out <- err
	}
	go sealer(ctx, first)
	<-arrived
	cancel()
	require.ErrorIs(t, <-first, context.Canceled)
	go sealer(t.Context(), second)
	close(release)
	require.NoError(t, <-second)
	require.Equal(t, 1, f.generated())
}

func TestKeyMaterialIsWiped(t *testing.T) {
	f := newFixture(t)
	seen := map[string][]byte{}
	o := f.options()
	o.KMS = hooked{
		KMS:    f.client,
		before: func(context.Context, string) error { return nil },
		after: func(operation string, plaintext []byte) {
			require.Len(t, plaintext, 32)
			require.NotEqual(t, make([]byte, 32), plaintext)
			seen[operation] = plaintext
		},
	}
	blob := seal(t, newEnvelope(o), "x")
	requireOpens(t, newEnvelope(o), blob, "x")
	require.Equal(t, map[string][]byte{"GenerateDataKey": make([]byte, 32), "Decrypt": make([]byte, 32)}, seen)
}
