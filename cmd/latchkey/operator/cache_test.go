package operator

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

func TestWhatIsReadIsKeptForAWhile(t *testing.T) {
	now := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	p := &Page{Options: Options{Now: func() time.Time { return now }, Log: zap.NewNop()}}
	p.ctx, p.cancel = context.WithCancel(t.Context())
	t.Cleanup(p.Close)
	reads, fails := 0, false
	c := cache[int]{every: 10 * time.Second, what: "the number", waits: true, load: func(context.Context) (int, error) {
		reads++
		if fails {
			return 0, errors.New("it is away")
		}
		return reads, nil
	}}
	get := func() part[int] { return c.get(t.Context(), p) }
	require.Equal(t, part[int]{At: now, Value: 1}, get())
	require.Equal(t, 1, get().Value)

	// A failure is kept for a moment only, and what was known stays with its time.
	first := now
	now = now.Add(c.every)
	fails = true
	require.Equal(t, part[int]{At: first, Value: 1, Problem: "the number can't be read now; see the worker's log"}, get())
	now = now.Add(retryAfter)
	fails = false
	require.Eventually(t, func() bool { return get() == part[int]{At: now, Value: 3} }, time.Minute, time.Millisecond)

	// What nobody looked at for long is read anew before it is shown.
	now = now.Add(time.Hour)
	require.Equal(t, part[int]{At: now, Value: 4}, get())

	// What hangs is given up when it is back, and read again.
	hung := make(chan struct{})
	read := c.load
	c.load = func(ctx context.Context) (int, error) {
		close(hung)
		<-ctx.Done()
		return 0, ctx.Err()
	}
	now = now.Add(c.every)
	require.Equal(t, 4, get().Value, "it is not waited for")
	<-hung
	c.load = read
	c.forget()
	require.Eventually(t, func() bool { return get() == part[int]{At: now, Value: 5} }, time.Minute, time.Millisecond)
}
