package handlers

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/config"
)

// BenchmarkJunk has a connect lie behind a backlog of so many messages that nobody
// can handle, and measures how long it takes until it is handled. "of-bare" is
// what that is of the time of a bare loop, which copies each message of as large a
// backlog to the dead letters and acknowledges it, as many at once. The two take
// turns.
func BenchmarkJunk(b *testing.B) {
	const atOnce, turn = 64, 20_000
	f := newFixture(b)
	f.messages.AckWait, f.messages.Backoff = 30*time.Second, config.Default().Messages.Backoff
	f.ensure()
	backlog := func(n int) {
		stream, err := f.js.Stream(b.Context(), f.subjects.IntegrationStream())
		require.NoError(b, err)
		require.NoError(b, stream.Purge(b.Context()))
		pad := strings.Repeat("x", 100)
		f.flood(f.subjects.Connected(), n, func(n int) []byte {
			return fmt.Appendf(nil, `{"userId":"user-%d","payload":{"x":%q}}`, n, pad)
		})
		f.publish("healthy")
	}
	connected := Connected(nil, nil, config.Default().Connect)
	worker := func(n int) time.Duration {
		backlog(n)
		handled, begun := make(chan time.Duration, 1), processTime(b)
		stop := f.run(atOnce, func(ctx context.Context, msg *message.Message) error {
			if string(msg.Payload) == "healthy" {
				handled <- processTime(b)
				return nil
			}
			return connected(ctx, msg)
		})
		defer stop()
		return <-handled - begun
	}
	bare := func(n int) time.Duration {
		backlog(n)
		begun := processTime(b)
		consumer, err := f.streams.Consumer(b.Context(), f.subjects.IntegrationStream(), f.subjects.Connected())
		require.NoError(b, err)
		places := make(chan struct{}, atOnce)
		var all sync.WaitGroup
		defer all.Wait()
		for {
			batch, err := consumer.Fetch(atOnce)
			require.NoError(b, err)
			for m := range batch.Messages() {
				if string(m.Data()) == "healthy" {
					require.NoError(b, m.Ack())
					return processTime(b) - begun
				}
				places <- struct{}{}
				all.Go(func() {
					defer func() { <-places }()
					if _, err := f.js.Publish(context.Background(), f.subjects.DeadLetter("x", "x"), m.Data(), jetstream.WithRetryAttempts(0)); err != nil {
						b.Error(err)
					}
					if err := m.Ack(); err != nil {
						b.Error(err)
					}
				})
			}
		}
	}
	var took, least time.Duration
	for left := b.N; left > 0; left -= turn {
		least += bare(min(left, turn))
		took += worker(min(left, turn))
	}
	b.ReportMetric(float64(took.Microseconds())/float64(b.N), "cpu-µs/junk")
	b.ReportMetric(took.Seconds()/least.Seconds(), "of-bare")
}

// processTime is the CPU time of the process, with its broker. What else the
// machine does hardly changes it.
func processTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
