package streams

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
)

// DueQueue is where the queue of a partition's due messages stands, by NATS's
// clock. Messages lie in it in the order in which they came, which is that in which
// they were due unless they came late: since NATS was away, or after they were put
// off.
type DueQueue struct {
	// Unseen: it could not be looked at, so that anything may lie in it.
	Unseen bool
	// Now is when it stood there.
	Now time.Time
	// Undelivered is when the first message came that no worker was given yet,
	// Unhandled the first that no worker is done with. Zero: there is none.
	Undelivered, Unhandled time.Time
	// UndeliveredLate and UnhandledLate are how long before that these were due.
	UndeliveredLate, UnhandledLate time.Duration
}

// DueQueues tells where the queues of due refreshes stand, in the order of the
// partitions. Those that it could not look at, which the error tells, are Unseen.
func (s *Topology) DueQueues(ctx context.Context) ([]DueQueue, error) {
	var all []DueQueue
	var failed error
	for _, p := range s.subjects.RefreshPartitions() {
		var q DueQueue
		for _, subject := range []string{p.Due, p.Urgent} {
			if err := s.lookAtQueue(ctx, p.Stream, subject, &q); err != nil {
				q.Unseen = true
				failed = errors.Join(failed, fmt.Errorf("looking at the queue of %s: %w", subject, err))
				break
			}
		}
		all = append(all, q)
	}
	return all, failed
}

// lookAtQueue adds one subject to where the queue of a partition stands.
func (s *Topology) lookAtQueue(ctx context.Context, name, subject string, q *DueQueue) error {
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
	// The stream is a work queue: it holds what is not done with.
	if err := bringForward(ctx, stream, subject, 1, &q.Unhandled, &q.UnhandledLate); err != nil || info.NumPending == 0 {
		return err
	}
	return bringForward(ctx, stream, subject, info.Delivered.Stream+1, &q.Undelivered, &q.UndeliveredLate)
}

// bringForward moves at to when the first message of a subject from a sequence
// on was stored, if that was earlier, and raises late to how long before that it
// was due.
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
	if m, err := events.DecodeRefreshDue(msg.Data); err == nil { // else it tells nothing, and is parked
		*late = max(*late, msg.Time.Sub(m.DueAt))
	}
	return nil
}
