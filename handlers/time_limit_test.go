package handlers

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestATimeLimitIsAContextThatEnds(t *testing.T) {
	l := newTimeLimit(time.Hour)
	require.NoError(t, l.Err())
	until, ok := l.Deadline()
	require.True(t, ok)
	require.WithinDuration(t, time.Now(), until, time.Hour)
	child, cancel := context.WithCancel(l)
	defer cancel()
	require.NoError(t, child.Err())
	l.stop()
	<-l.Done()
	<-child.Done()
	require.ErrorIs(t, l.Err(), context.Canceled)

	l = newTimeLimit(time.Millisecond)
	require.Eventually(t, func() bool { return l.Err() != nil }, patience, time.Millisecond, "without anybody who waits")
	require.ErrorIs(t, l.Err(), context.DeadlineExceeded)
	l = newTimeLimit(time.Millisecond)
	<-l.Done()
	require.ErrorIs(t, l.Err(), context.DeadlineExceeded)
	l.stop()

	l = newTimeLimit(time.Hour)
	l.stop() // nobody has waited
	require.NoError(t, l.Err())
}
