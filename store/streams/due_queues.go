package streams

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
)

// DueQueue is the progress of a partition's queue of due messages, by NATS's clock. The
// queue is in the order of arrival. That is the order of due times except for messages
// that arrived late, since NATS was away or a worker put them off.
type DueQueue struct {
	// Unreadable: the queue can't be read, and may contain anything.
	Unreadable bool
	// Now is when it was read.
	Now time.Time
	// Undelivered is when the first message arrived that was not delivered yet,
	// Unhandled the first that was not acknowledged yet. Zero: there is none.
	Undelivered, Unhandled time.Time
	// UndeliveredLate and UnhandledLate are how late these arrived.
	UndeliveredLate, UnhandledLate time.Duration
}

// DueQueues returns the queues of due refreshes in the order of the partitions. The
// error covers those that are Unreadable.
func (s *Topology) DueQueues(ctx context.Context) ([]DueQueue, error) {
	var all []DueQueue
	var failed error
	for _, p := range s.subjects.RefreshPartitions() {
		var q DueQueue
		for _, subject := range []string{p.Due, p.Urgent} {
			if err := s.readQueue(ctx, p.Stream, subject, &q); err != nil {
				q.Unreadable = true
				failed = errors.Join(failed, fmt.Errorf("inspecting the queue of %s: %w", subject, err))
				break
			}
		}
		all = append(all, q)
	}
	return all, failed
}

// readQueue adds one subject to the queue of a partition.
func (s *Topology) readQueue(ctx context.Context, name, subject string, q *DueQueue) error {
	consumer, err := s.js.Consumer(ctx, name, Durable(subject))
	if err != nil {
		return err
	}
	info := consumer.CachedInfo()
	q.Now = info.TimeStamp
	if info.NumPending == 0 && info.NumAckPending == 0 {
		return nil
	}
	stream, err := s.js.Stream(ctx, name)
	if err != nil {
		return err
	}
	// The stream is a work queue: its messages are not acknowledged yet.
	if err := bringForward(ctx, stream, subject, 1, &q.Unhandled, &q.UnhandledLate); err != nil || info.NumPending == 0 {
		return err
	}
	return bringForward(ctx, stream, subject, info.Delivered.Stream+1, &q.Undelivered, &q.UndeliveredLate)
}

// bringForward moves at to the arrival of the first message of a subject from a sequence
// on, if that was earlier, and raises late to how late that message arrived.
func bringForward(ctx context.Context, stream jetstream.Stream, subject string, from uint64, at *time.Time, late *time.Duration) error {
	msg, err := stream.GetMsg(ctx, from, jetstream.WithGetMsgSubject(subject))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if at.IsZero() || msg.Time.Before(*at) {
		*at = msg.Time
	}
	if m, err := events.DecodeRefreshDue(msg.Data); err == nil { // else it becomes a dead letter
		*late = max(*late, msg.Time.Sub(m.DueAt))
	}
	return nil
}
