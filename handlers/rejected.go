package handlers

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
)

// Rejections tell publishers of connects that changed nothing. They are told once
// and without waiting: what they are about is safe, as a grant or as a dead letter.
type Rejections struct {
	Conn     *nats.Conn
	Subjects events.Subjects
	Now      func() time.Time
	NewID    func() string
	Log      *zap.Logger
	// Limit bounds how many are told; the others are not. Whoever floods a worker
	// with junk must not push other events out of NATS.
	Limit *rate.Limiter
}

// rejectionsPerSecond bounds what one worker tells, and rejectionsAtOnce what of it
// may come together.
const (
	rejectionsPerSecond = 50
	rejectionsAtOnce    = 500
)

// RejectionLimit returns the limit of one worker.
func RejectionLimit() *rate.Limiter { return rate.NewLimiter(rejectionsPerSecond, rejectionsAtOnce) }

// tell tells the publishers of a user's connects of one; of a user whose id is not
// known nobody is told. r may be nil.
func (r *Rejections) tell(ctx context.Context, d *delivery, user string, told events.Rejected) {
	if r == nil || events.CheckUserID(user) != nil || !r.Limit.Allow() {
		return
	}
	told.UserID = user
	if d.EventID != nil {
		told.EventID = d.EventID()
	}
	told.Stream, told.Sequence = d.place.stream, d.place.sequence
	e := events.RejectedEvent{ID: r.NewID(), Time: r.Now().UTC(), Data: told}
	body, err := e.Encode()
	if err == nil {
		msg := nats.NewMsg(r.Subjects.Rejected(user))
		msg.Data = body
		msg.Header.Set("Content-Type", "application/cloudevents+json")
		msg.Header.Set(nats.MsgIdHdr, e.ID)
		d.Trace.Into(msg.Header)
		err = r.Conn.PublishMsg(msg)
	}
	if err != nil {
		tracing.Log(ctx, r.Log).Warn("a publisher could not be told of a connect that changed nothing", zap.Error(err))
	}
}

// parked tells of a connect that became a dead letter.
func (r *Rejections) parked(ctx context.Context, d *delivery, err error) {
	if len(d.named) != 1 {
		return
	}
	told := events.Rejected{Reason: events.RejectedFailed, DeadLetterID: d.letter}
	var invalid *events.InvalidError
	var unsealed *unsealedError
	switch {
	case errors.As(err, &unsealed):
		told.Reason = events.RejectedUnsealed
	case errors.As(err, &invalid):
		told.Reason, told.Problem = events.RejectedInvalid, invalid.Problem
	}
	r.tell(ctx, d, d.named[0], told)
}

// passedKey is where a context holds why candidates of a connect were passed over.
type passedKey struct{}

// passing has what Connect passes over noted.
func passing(ctx context.Context) (context.Context, *[]events.RejectedReason) {
	passed := new([]events.RejectedReason)
	return context.WithValue(ctx, passedKey{}, passed), passed
}

// pass notes that a candidate of the connect at work is passed over.
func pass(ctx context.Context, reason events.RejectedReason) {
	if passed, ok := ctx.Value(passedKey{}).(*[]events.RejectedReason); ok {
		*passed = append(*passed, reason)
	}
}

// passedOver is the reason to tell of a connect of which so many candidates were
// passed over; "": some were not.
func passedOver(passed []events.RejectedReason, candidates int) events.RejectedReason {
	if candidates == 0 || len(passed) < candidates {
		return ""
	}
	for _, reason := range passed {
		if reason != passed[0] {
			return events.RejectedOlder
		}
	}
	return passed[0]
}
