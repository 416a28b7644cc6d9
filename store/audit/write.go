package audit

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events/pause"
)

// Bounds of one attempt to publish, and of the pause before the next.
const (
	attemptTimeout = 5 * time.Second
	pauseMin       = 50 * time.Millisecond
	pauseMax       = 2 * time.Second
)

// write publishes message after message until ctx ends.
func (l *Log) write(ctx context.Context) {
	var batch []*entry
	var body []byte
	previous := origin(l.chain)
	for {
		l.yieldForMore()
		if batch = l.take(batch[:0]); len(batch) == 0 {
			select {
			case <-l.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		number, after := l.head.Number+1, l.head.Sequence // only written below
		body = appendMessage(body[:0], l.chain, l.worker, number, previous, after, batch)
		sequence, err := l.store(ctx, number, body)
		if err != nil {
			l.requeue(batch)
			return // the process ends
		}
		previous = hashOf(body)
		l.stored(batch, number, sequence, previous)
		if number == 1 {
			l.first <- struct{}{}
		}
	}
}

// stored ends the wait of the callers whose records JetStream has stored.
func (l *Log) stored(batch []*entry, number, sequence uint64, hash Hash) {
	l.mu.Lock()
	l.head.Number, l.head.Sequence, l.head.Hash = number, sequence, hash.String()
	l.head.At, l.head.Ended = l.now().UTC(), batch[len(batch)-1].action == End
	l.publishing = nil // expire must not call done too
	l.mu.Unlock()
	for _, e := range batch {
		l.metrics.recorded(e.action)
		if e.done != nil {
			e.done(nil)
		}
	}
}

// yieldForMore yields to other goroutines as long as they add records: the more share a
// message, the less each costs. On an idle machine it returns at once.
func (l *Log) yieldForMore() {
	for had, has := -1, l.queued(); had < has && has < l.maxBatch; had, has = has, l.queued() {
		runtime.Gosched()
	}
}

// take moves as many records as fit into a message from the queue into a batch.
func (l *Log) take(batch []*entry) []*entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	size, n := overhead, 0
	// The first record of a chain stays the first.
	if lost := l.lost; lost > 0 && l.head.Number > 0 {
		data, err := Record{At: l.now().UTC(), Action: Lost, Count: lost}.encode(l.maxBatch)
		if err == nil {
			batch, size, l.lost = append(batch, &entry{data: data, action: Lost}), size+len(data), 0
		}
	}
	for _, e := range l.queue {
		if size += len(e.data) + 1; size > l.maxBatch && len(batch) > 0 {
			break
		}
		n++
		if e.data == nil {
			l.withdrawn--
			continue
		}
		e.inMessage = true
		l.size -= len(e.data)
		batch = append(batch, e)
	}
	l.queue = slices.Delete(l.queue, 0, n)
	l.publishing = batch
	return batch
}

// requeue returns records that could not be published to the queue.
func (l *Log) requeue(batch []*entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue, l.publishing = append(slices.Clone(batch), l.queue...), nil
}

// store publishes until the message is stored or ctx ends. The id keeps the stream from
// storing it twice.
func (l *Log) store(ctx context.Context, number uint64, body []byte) (sequence uint64, err error) {
	id := l.chain + "." + strconv.FormatUint(number, 10)
	wait := pauseMin
	for failed := 0; ; failed++ {
		sequence, err := l.attempt(ctx, id, body)
		if err == nil {
			if failed > 0 {
				l.log.Info("the audit log can be written again", zap.Int("attempt", failed+1))
			}
			return sequence, nil
		}
		if ctx.Err() != nil {
			return 0, fmt.Errorf("writing the audit log: %w", err)
		}
		l.metrics.failures.Inc()
		if failed == 0 {
			l.log.Error("the audit log can't be written; retrying", zap.Error(err))
		}
		if err := pause.For(ctx, wait); err != nil {
			return 0, err
		}
		wait = min(2*wait, pauseMax)
	}
}

func (l *Log) attempt(ctx context.Context, id string, body []byte) (sequence uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return l.publish(ctx, &nats.Msg{Subject: l.subject, Data: body, Header: nats.Header{
		jetstream.MsgIDHeader: {id}, jetstream.ExpectedStreamHeader: {l.stream},
	}})
}

// queued returns the number of waiting bytes.
func (l *Log) queued() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size
}
