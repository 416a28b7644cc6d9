package handlers

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func timeLimitOf(d time.Duration) *timeLimit {
	var l timeLimit
	l.begin(d)
	return &l
}

func TestATimeLimitIsAContextThatEnds(t *testing.T) {
	l := timeLimitOf(time.Hour)
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

	l = timeLimitOf(time.Millisecond)
	require.Eventually(t, func() bool { return l.Err() != nil }, patience, time.Millisecond, "without anybody who waits")
	require.ErrorIs(t, l.Err(), context.DeadlineExceeded)
	l = timeLimitOf(time.Millisecond)
	<-l.Done()
	require.ErrorIs(t, l.Err(), context.DeadlineExceeded)
	l.stop()

	l = timeLimitOf(time.Hour)
	l.stop() // nobody has waited
	require.NoError(t, l.Err())
}
