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
	"github.com/latchkey/latchkey/store"
)

// Rejections tell publishers of connects that changed nothing. They are told once
// and without waiting: what they are about is safe, as a grant or as a dead letter.
type Rejections struct {
	Conn     *nats.Conn
	Subjects events.Subjects
	Now      func() time.Time
	NewID    func() string
	Source   string // events.SourceOf the installation
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
	e := events.RejectedEvent{ID: r.NewID(), Source: r.Source, Time: r.Now().UTC(), Data: told}
	body, err := e.Encode()
	if err == nil {
		msg := nats.NewMsg(r.Subjects.Rejected(user))
		msg.Data = body
		msg.Header.Set("Content-Type", "application/cloudevents+json")
		msg.Header.Set(nats.MsgIdHdr, e.ID)
		d.Trace.Inject(msg.Header)
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

// passes are what became of the candidates of one connect that changed nothing.
type passes struct {
	// over says why candidates were passed over, by the ids of their grants.
	over map[string]events.RejectedReason
	// own are the candidates whose grants are stored, now or when the connect was
	// delivered before, by the ids under which they are.
	own map[string]string
	// unsent are the ids of the grants of which nobody was told, since another holds
	// the same refresh token.
	unsent map[string]bool
}

// passesKey is where a context holds the passes of the connect at work.
type passesKey struct{}

// passing has what Connect passes over noted.
func passing(ctx context.Context) (context.Context, *passes) {
	p := &passes{map[string]events.RejectedReason{}, map[string]string{}, map[string]bool{}}
	return context.WithValue(ctx, passesKey{}, p), p
}

// passesOf are those of the connect at work; of other work nobody is told.
func passesOf(ctx context.Context) *passes {
	if p, ok := ctx.Value(passesKey{}).(*passes); ok {
		return p
	}
	_, p := passing(ctx)
	return p
}

// pass notes that a candidate is passed over.
func (p *passes) pass(in candidate, reason events.RejectedReason) { p.over[in.grant.ID] = reason }

// stands notes that a candidate's grant is stored under an id. contested: another holds
// its refresh token, so that nobody was told of it.
func (p *passes) stands(in candidate, id string, contested bool) {
	p.own[id], p.unsent[id] = in.grant.ID, contested
}

// lose notes that a grant goes, and with it the candidate whose it is, if it is one's.
func (p *passes) lose(g *store.Grant) {
	if id, ok := p.own[g.ID]; ok {
		p.over[id] = events.RejectedOlder
	}
}

// reason is the reason to tell of a connect of so many candidates; "": some were not
// passed over.
func (p *passes) reason(candidates int) events.RejectedReason {
	if candidates == 0 || len(p.over) < candidates {
		return ""
	}
	for _, reason := range p.over {
		if reason != events.RejectedRepeated {
			return events.RejectedOlder
		}
	}
	return events.RejectedRepeated
}
