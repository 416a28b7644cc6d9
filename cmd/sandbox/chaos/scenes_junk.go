package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/store/streams"
)

// junk is what was published that no handler can read, and what became of it.
type junk struct {
	sent    map[string]int                // by subject; each must become a dead letter
	letters map[string]map[time.Time]bool // by subject and the time at which NATS stored the message
	next    uint64                        // sequence of the next dead letter to read
}

// junkSizes of messages, in bytes. The largest that NATS takes is added.
var junkSizes = []int{0, 1, 100, 10_000, 300_000, 900_000}

// publishJunk publishes random bytes with all kinds of headers on every subject that a worker
// reads or writes, except for the audit log, from which nothing can be deleted.
func (r *run) publishJunk(ctx context.Context) error {
	s := events.Subjects{}
	foreign := uuid.NewString()
	most := int(r.nc.MaxPayload()) - 4<<10 // headers count too
	for n, size := range append([]int{most}, junkSizes...) {
		id := fmt.Sprintf("junk%d", n)
		others := []string{s.RefreshSchedule(id), s.DeadLetter(id, "junk"), s.TokenGet(id), "token.get.%%%", s.TokenKeys()}
		for _, kind := range events.LifecycleKinds {
			others = append(others, s.Lifecycle(kind, id))
		}
		for _, subject := range workedSubjects(id) {
			if err := r.publishOne(ctx, r.junkMessage(subject, size, foreign)); err != nil {
				return err
			}
		}
		for _, subject := range others {
			m := r.junkMessage(subject, size, foreign)
			m.Reply = r.nc.NewInbox()
			if err := r.nc.PublishMsg(m); err != nil {
				return fmt.Errorf("publishing junk: %w", err)
			}
		}
		if err := r.pause(ctx, 100*time.Millisecond, time.Second); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) junkMessage(subject string, size int, foreign string) *nats.Msg {
	m := nats.NewMsg(subject)
	m.Data = make([]byte, size)
	for i := range m.Data {
		m.Data[i] = byte(r.rng.Uint32())
	}
	switch r.rng.IntN(4) {
	case 0:
		m.Header.Set(jetstream.MsgIDHeader, foreign) // what others have used
	case 1:
		m.Header.Set("traceparent", "00-junk")
		m.Header.Set("ce-type", string(m.Data[:min(20, size)]))
	case 2:
		for i := range 20 {
			m.Header.Add(fmt.Sprintf("X-Junk-%d", i), "junk")
		}
	}
	return m
}

// publishOne publishes a message that must become a dead letter, unless NATS drops it as a
// duplicate.
func (r *run) publishOne(ctx context.Context, m *nats.Msg) error {
	return until(ctx, settleWithin, "junk published", func() error {
		ack, err := r.js.PublishMsg(ctx, m)
		if err != nil {
			return err
		}
		if !ack.Duplicate {
			r.junk.sent[m.Subject]++
		}
		return nil
	})
}

// allParked reads the dead letters, and returns an error if any junk is not among them.
func (r *run) allParked(ctx context.Context) error {
	dead, err := handlers.NewDeadLetters(handlers.DeadLettersOptions{JetStream: r.js})
	if err != nil {
		return err
	}
	for letter, err := range dead.From(ctx, r.junk.next) {
		if err != nil {
			return err
		}
		r.junk.next = letter.Sequence + 1
		if r.junk.letters[letter.Subject] == nil {
			r.junk.letters[letter.Subject] = map[time.Time]bool{}
		}
		r.junk.letters[letter.Subject][letter.StoredAt] = true
	}
	var missing error
	for subject, sent := range r.junk.sent {
		if n := len(r.junk.letters[subject]); n < sent {
			missing = errors.Join(missing, fmt.Errorf("%d of %d junk messages on %s parked", n, sent, subject))
		}
	}
	return missing
}

// idle returns an error if any message of a work queue is left.
func (r *run) idle(ctx context.Context) error {
	s := events.Subjects{}
	var busy error
	for _, queue := range []struct{ stream, subject string }{
		{s.IntegrationStream(), s.Connected()}, {s.IntegrationStream(), s.Disconnected()}, {s.RecoveryStream(), s.RecoveryAll()},
	} {
		c, err := r.js.Consumer(ctx, queue.stream, streams.Durable(queue.subject))
		if err != nil {
			return fmt.Errorf("inspecting the consumer of %s: %w", queue.subject, err)
		}
		if i := c.CachedInfo(); i.NumPending > 0 || i.NumAckPending > 0 {
			busy = errors.Join(busy, fmt.Errorf("%s: %d messages wait, %d are being handled", queue.subject, i.NumPending, i.NumAckPending))
		}
	}
	return busy
}

// judgeJunk counts messages that were lost, and good ones that were parked.
func (r *run) judgeJunk(v *verdict, at time.Time) {
	for _, subject := range workedSubjects("*") {
		sent, parked := 0, 0
		for s, n := range r.junk.sent {
			if server.SubjectsCollide(s, subject) {
				sent += n
			}
		}
		for s, letters := range r.junk.letters {
			if server.SubjectsCollide(s, subject) {
				parked += len(letters)
			}
		}
		if parked != sent {
			v.count(unparked, at)
			v.say("%d junk messages on %s, and %d dead letters", sent, subject, parked)
		}
	}
}

func workedSubjects(recovery string) []string {
	s := events.Subjects{}
	return []string{s.Connected(), s.Disconnected(), s.RefreshDue(), s.RefreshUrgent(), s.Recovery(recovery)}
}
