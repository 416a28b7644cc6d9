package operator

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/store/streams"
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

// A count that takes longer than ever before comes to its end all the same.
func TestACountMayTakeLongerThanTheLast(t *testing.T) {
	now := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	p := &Page{Options: Options{Now: func() time.Time { return now }, Log: zap.NewNop()}, ctx: t.Context()}
	c := cache[int]{every: 10 * time.Second, what: "the number", counts: true}
	end := func(err error, took time.Duration) { c.end(p, &loading{done: make(chan struct{})}, 1, err, took) }
	require.Equal(t, maxLoadTimeout, c.timeout(), "nothing is known of it")
	end(nil, 10*time.Millisecond)
	require.Equal(t, minLoadTimeout, c.timeout())
	end(context.DeadlineExceeded, minLoadTimeout)
	require.Equal(t, 4*minLoadTimeout, c.timeout())
	require.Equal(t, now.Add(minLoadTimeout), c.next, "it is not the database's only work")
	end(errors.New("away"), time.Millisecond)
	require.Equal(t, 4*minLoadTimeout, c.timeout())
	require.Equal(t, now.Add(retryAfter), c.next)
	end(context.DeadlineExceeded, 4*minLoadTimeout)
	require.Equal(t, maxLoadTimeout, c.timeout())
	end(nil, time.Second)
	require.Equal(t, 4*time.Second, c.timeout())
}

func hang[T any](ctx context.Context) (none T, err error) {
	<-ctx.Done()
	return none, ctx.Err()
}

// TestPartsAreReadSideBySide: where MongoDB hangs, what is read from NATS is there at once, and
// nobody waits for more than one of the others.
func TestPartsAreReadSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Page{Options: Options{Now: time.Now, Log: zap.NewNop()}}
		p.ctx, p.cancel = context.WithCancel(t.Context())
		defer p.Close()
		p.stock.load, p.schedule.load, p.overdue.load, p.failing.load, p.verdicts.load = hang[Stock], hang[Schedule], hang[Overdue], hang[Failing], hang[[]view.Verdicts]
		p.queues.load = func(context.Context) ([]streams.Backlog, error) { return nil, nil }
		p.letters.load = func(context.Context) (uint64, error) { return 3, nil }
		p.workers.load = func(context.Context) ([]Worker, error) { return nil, nil }
		p.state.load = func(context.Context) (Readiness, error) { return Readiness{}, nil }
		begun := time.Now()
		var o Overview
		p.read(t.Context(), &o)
		require.Equal(t, firstWait, time.Since(begun))
		require.EqualValues(t, 3, o.Letters.Value)
		for _, at := range []time.Time{o.Queues.At, o.Letters.At, o.Workers.At, o.Readiness.At} {
			require.WithinDuration(t, begun, at, 0)
		}
		for _, at := range []time.Time{o.Stock.At, o.Schedule.At, o.Overdue.At, o.Failing.At, o.Verdicts.At} {
			require.Zero(t, at)
		}
	})
}
