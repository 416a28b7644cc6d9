package envelope_test

import (
	"bytes"
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/store/envelope"
)

// memory returns where the one data key of an envelope lies, which is not zero.
func memory(t *testing.T, e *envelope.Envelope) [][]byte {
	t.Helper()
	all := e.Memory()
	require.Len(t, all, 1)
	for _, found := range all {
		require.Len(t, found, 5, "encryption and decryption keys, twice, and GCM's table")
		for _, m := range found {
			require.False(t, bytes.Equal(m, make([]byte, len(m))))
		}
		return found
	}
	return nil
}

func requireWiped(t *testing.T, memory [][]byte, what string) {
	t.Helper()
	for _, m := range memory {
		require.Equal(t, make([]byte, len(m)), m, what)
	}
}

// collect waits until all keys that nobody can reach are wiped.
func collect(t *testing.T, e *envelope.Envelope, left int) {
	t.Helper()
	require.Eventually(t, func() bool { runtime.GC(); return e.KeysInMemory() == left }, time.Minute, time.Millisecond)
}

func TestTheMemoryOfAKeyHoldsItAndIsWiped(t *testing.T) {
	f := newFixture(t)
	blob := seal(t, f.envelope(), "x")
	for what, leave := range map[string]func(e *envelope.Envelope){
		"aged": func(e *envelope.Envelope) {
			f.clock.Advance(time.Hour + outage)
			e.DropAged()
		},
		"replaced": func(e *envelope.Envelope) {
			f.clock.Advance(time.Hour)
			requireOpens(t, e, blob, "x")
			require.Equal(t, 1, e.KeysInMemory())
		},
		"pushed out": func(e *envelope.Envelope) { requireOpens(t, e, seal(t, f.envelope(), "y"), "y") },
		"closed":     (*envelope.Envelope).Close,
		"refused": func(e *envelope.Envelope) {
			f.sim.Faults().Next(1, kmssim.AccessDenied)
			f.clock.Advance(time.Hour)
			_, err := e.Open(t.Context(), blob, binding)
			require.ErrorIs(t, err, envelope.ErrKMS)
		},
		"deleted": func(e *envelope.Envelope) {
			f.clock.Advance(time.Hour)
			key := f.keys.All()[blob.KeyID]
			f.keys.Remove(blob.KeyID)
			_, err := e.Open(t.Context(), blob, binding)
			require.ErrorIs(t, err, envelope.ErrUnknownKey)
			f.keys.Put(key)
		},
	} {
		o := f.options()
		o.CacheSize = 1
		var plain []byte
		o.KMS = hooked{
			KMS: f.client, before: func(context.Context, string) error { return nil },
			after: func(_ string, plaintext []byte) { plain = bytes.Clone(plaintext) },
		}
		e := newEnvelope(o)
		requireOpens(t, e, blob, "x")
		found := memory(t, e)
		require.True(t, bytes.Contains(bytes.Join(found, nil), plain[:16]) || runtime.GOARCH != "amd64", "the first round key is the key's first half")
		leave(e)
		requireWiped(t, found, what)
		require.LessOrEqual(t, e.KeysInMemory(), 1, what)
	}
}

func TestAKeyThatSealsIsWipedAfterItsLastSealer(t *testing.T) {
	f := newFixture(t)
	for what, leave := range map[string]func(*envelope.Envelope){
		"closed":  (*envelope.Envelope).Close,
		"retired": func(e *envelope.Envelope) { f.clock.Advance(time.Hour + outage); e.RetireBefore(f.clock.Now()) },
		"over":    func(e *envelope.Envelope) { f.clock.Advance(24*time.Hour + outage); e.DropAged() },
		"refused": func(e *envelope.Envelope) {
			f.sim.Faults().Next(1, kmssim.AccessDenied)
			f.clock.Advance(24 * time.Hour)
			_, err := e.Sealer(t.Context(), "user")
			require.ErrorIs(t, err, envelope.ErrKMS)
			e.DropAged()
		},
	} {
		e := f.envelope()
		var found [][]byte
		func() {
			s, err := e.Sealer(t.Context(), "user")
			require.NoError(t, err)
			found = memory(t, e)
			leave(e)
			for range 3 {
				runtime.GC()
			}
			blob := s.Seal([]byte("the answer of a spent token"), binding)
			requireOpens(t, f.envelope(), blob, "the answer of a spent token")
		}()
		if e.CachedKeys() == 1 { // refused for sealing, it still opens
			f.clock.Advance(time.Hour + outage)
			e.DropAged()
		}
		collect(t, e, 0)
		requireWiped(t, found, what)
	}
}

// A cache that is far too small, and an operator who never stops.
func TestNobodyUsesAKeyThatIsBeingWiped(t *testing.T) {
	f := newFixture(t)
	o := f.options()
	o.CacheSize, o.MaxSets, o.PerUser = 1, 5, true
	e := newEnvelope(o)
	var blobs []envelope.Blob
	for range 4 {
		blobs = append(blobs, seal(t, f.envelope(), "x"))
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 25 {
				got, err := e.Open(t.Context(), blobs[(i+n)%len(blobs)], binding)
				if err != nil || string(got) != "x" {
					t.Errorf("opened %q: %v", got, err)
				}
				s, err := e.Sealer(t.Context(), users[(i+n)%3])
				if err != nil {
					t.Error(err)
					return
				}
				got, err = e.Open(t.Context(), s.Seal([]byte("y"), binding), binding)
				if err != nil || string(got) != "y" {
					t.Errorf("opened %q: %v", got, err)
				}
				switch n % 4 {
				case 0:
					e.RetireBefore(f.clock.Now())
				case 1:
					runtime.GC()
				case 2:
					f.clock.Advance(time.Hour)
				case 3:
					e.DropAged()
				}
			}
		})
	}
	all.Wait()
	e.Close()
	collect(t, e, 0)
}

func TestWorkUnderWayIsFinishedAfterClose(t *testing.T) {
	f := newFixture(t)
	e := f.envelope()
	e.Close()
	requireOpens(t, e, seal(t, e, "an answer"), "an answer")
	collect(t, e, 0)
}

func TestAnAnswerIsSealedWhileKMSRefuses(t *testing.T) {
	f := newFixture(t)
	e := f.envelope()
	s, err := e.Sealer(t.Context(), "user")
	require.NoError(t, err)
	f.sim.Faults().Always(kmssim.AccessDenied)
	f.clock.Advance(48 * time.Hour)
	_, err = e.Sealer(t.Context(), "user")
	require.ErrorIs(t, err, envelope.ErrKMS)
	require.NotErrorIs(t, err, envelope.ErrWrappedKey)
	blob := s.Seal([]byte("answer"), binding)
	f.sim.Faults().Clear()
	requireOpens(t, f.envelope(), blob, "answer")
}
