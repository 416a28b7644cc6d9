package store_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/store"
)

func TestVerdictsAreHeldAfterRefusalsInARow(t *testing.T) {
	s := open(t)
	refused := func(grant string, at time.Duration) (held, begins bool) {
		t.Helper()
		v, begins, err := s.RecordRefusal(t.Context(), "coinbase", grant, now.Add(at), 3, time.Hour)
		require.NoError(t, err)
		return v.HeldSince != nil, begins
	}
	expect := func(grant string, at time.Duration, wantHeld, wantBegins bool) {
		t.Helper()
		held, begins := refused(grant, at)
		require.Equal(t, wantHeld, held)
		require.Equal(t, wantBegins, begins)
	}
	for range 5 {
		expect("one", 0, false, false) // however often
	}
	expect("two", time.Minute, false, false)
	ended, err := s.RecordSuccess(t.Context(), "coinbase")
	require.NoError(t, err)
	require.False(t, ended)
	expect("three", 2*time.Minute, false, false)
	expect("four", 3*time.Minute, false, false)
	expect("five", 70*time.Minute, false, false) // the others were too long ago
	expect("six", 80*time.Minute, false, false)
	expect("seven", 90*time.Minute, true, true)
	expect("eight", 100*time.Hour, true, false) // goes on however long it takes
	all, err := s.Verdicts(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.Equal(t, now.Add(90*time.Minute), all[0].HeldSince.UTC())
	ended, err = s.RecordSuccess(t.Context(), "coinbase")
	require.NoError(t, err)
	require.True(t, ended)
	all, err = s.Verdicts(t.Context())
	require.NoError(t, err)
	require.Empty(t, all)
	ended, err = s.RecordSuccess(t.Context(), "another")
	require.NoError(t, err)
	require.False(t, ended)
}

// However many workers note refusals at the same time, one of them begins to hold.
func TestOneOfManyBeginsToHoldVerdicts(t *testing.T) {
	s := open(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	began := 0
	for n := range 8 {
		wg.Go(func() {
			_, begins, err := s.RecordRefusal(t.Context(), "coinbase", string(rune('a'+n)), now, 3, time.Hour)
			assert.NoError(t, err)
			mu.Lock()
			defer mu.Unlock()
			if begins {
				began++
			}
		})
	}
	wg.Wait()
	require.Equal(t, 1, began)
	v, err := s.Decide(t.Context(), "coinbase", store.DecidedRelease, now)
	require.NoError(t, err)
	require.Nil(t, v.HeldSince)
	require.Empty(t, v.Refused)
}

func TestTheListOfRefusedGrantsIsBounded(t *testing.T) {
	s := open(t)
	var v store.Verdicts
	for n := range 120 {
		var err error
		v, _, err = s.RecordRefusal(t.Context(), "coinbase", string(rune(0x4e00+n)), now, 0, time.Hour)
		require.NoError(t, err)
	}
	require.Len(t, v.Refused, 100)
	require.Nil(t, v.HeldSince)
}
