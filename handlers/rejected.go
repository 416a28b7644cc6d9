package handlers

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/options"
	"github.com/latchkey/latchkey/events/tracing"
)

// Rejections publish an event about each connect that changed nothing, once and without
// waiting: the connect itself is safe, as a grant or as a dead letter.
type Rejections struct{ opts RejectionsOptions }

// RejectionsOptions are the parts of Rejections.
type RejectionsOptions struct {
	Conn     *nats.Conn
	Subjects events.Subjects
	Now      func() time.Time
	NewID    func() string
	Source   string // events.SourceOf the installation
	Log      *zap.Logger
	// Limit bounds the events, so that a flood of junk does not push others out of NATS.
	// There are none beyond it. Nil: 50 a second, and 500 at once.
	Limit *rate.Limiter
}

// NewRejections returns the rejections of a worker.
func NewRejections(o RejectionsOptions) (*Rejections, error) {
	if err := options.Require("a publisher of rejections", o, "Conn", "Now", "NewID", "Log"); err != nil {
		return nil, err
	}
	if o.Limit == nil {
		o.Limit = rate.NewLimiter(50, 500)
	}
	return &Rejections{o}, nil
}

// publish publishes an event about a connect of a user, if the user's id is valid. r may
// be nil.
func (r *Rejections) publish(ctx context.Context, d *delivery, user string, data events.Rejected) {
	if r == nil || events.CheckUserID(user) != nil || !r.opts.Limit.Allow() {
		return
	}
	data.UserID = user
	if d.EventID != nil {
		data.EventID = d.EventID()
	}
	data.Stream, data.Sequence = d.place.stream, d.place.sequence
	e := events.RejectedEvent{ID: r.opts.NewID(), Source: r.opts.Source, Time: r.opts.Now().UTC(), Data: data}
	body, err := e.Encode()
	if err == nil {
		msg := nats.NewMsg(r.opts.Subjects.PublishedLifecycle(r.opts.Subjects.Rejected(user)))
		msg.Data = body
		msg.Header.Set("Content-Type", "application/cloudevents+json")
		msg.Header.Set(nats.MsgIdHdr, e.ID)
		d.Trace.Inject(msg.Header)
		err = r.opts.Conn.PublishMsg(msg)
	}
	if err != nil {
		tracing.Log(ctx, r.opts.Log).Warn("the event about a connect that changed nothing could not be published", zap.Error(err))
	}
}

// parked publishes an event about a connect that became a dead letter.
func (r *Rejections) parked(ctx context.Context, d *delivery, err error) {
	if len(d.named) != 1 {
		return
	}
	data := events.Rejected{Reason: events.RejectedFailed, DeadLetterID: d.letter}
	var invalid *events.InvalidError
	switch {
	case errors.As(err, new(*unsealedError)):
		data.Reason = events.RejectedUnsealed
	case errors.As(err, &invalid):
		data.Reason, data.Problem = events.RejectedInvalid, invalid.Problem
	}
	r.publish(ctx, d, d.named[0], data)
}
