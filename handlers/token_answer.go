package handlers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
)

// receive runs on the subscription's goroutine, and waits for nothing. What can
// be answered at once is answered there: handing it on would cost nearly as much
// as the answer.
func (t *TokenService) receive(req micro.Request) {
	t.atWork.Add(1)
	a := &answer{TokenService: t, req: req}
	ctx, cancel := context.WithTimeout(context.Background(), t.cfg.Timeout)
	a.cancel = cancel
	defer a.caught()
	a.ctx, a.end = t.startSpan(ctx, req, events.TokenGetName, t.subjects.TokenGetAll())
	a.record.Caller = t.callerOf(req)
	if !t.inboxes.Take(req.Reply()) {
		a.unanswerable()
		return
	}
	if err := a.read(); err != nil {
		a.fail(err)
		return
	}
	if a.atHand {
		a.give(func() (events.TokenReply, error) { return t.reply(a.ctx, a.in, a.wanted, &a.record) })
		return
	}
	if !a.hold(forWork) {
		a.fail(refuse(events.CodeBusy, "too many requests wait; ask again"))
		return
	}
	go func() {
		defer a.caught()
		a.give(func() (events.TokenReply, error) {
			return t.get(a.ctx, a.in, &a.record, asker{a.caller, a.hold, a.decide})
		})
	}()
}

// answer is one on its way.
type answer struct {
	*TokenService
	req      micro.Request
	ctx      context.Context
	cancel   context.CancelFunc
	end      func(code string) // of the span
	in       events.TokenRequest
	wanted   []*store.Grant // if atHand
	atHand   bool           // nothing has to be waited for
	record   audit.Record
	body     []byte
	answered atomic.Bool
	// caller, and what it has a place to wait for.
	caller, held string

	// decided is when, by the clock on the wall, and at which count of changes
	// the answer was made. The first token in it ends at ends, if ends is set.
	decided time.Time
	change  uint64
	ends    time.Time
}

// hold exchanges the place that the answer has for one among those that wait for
// something else, or for none (""). If there is none it keeps the one it has.
func (a *answer) hold(what string) bool {
	if what != "" && !a.places.take(what, a.caller, maxWaiting) {
		return false
	}
	if a.held != "" {
		a.places.free(a.held, a.caller)
	}
	a.held = what
	return true
}

// read reads the request, and looks for what is at hand to answer it.
func (a *answer) read() (err error) {
	defer panicked(&err)
	user, err := events.DecodeUserID(userIn(a.req.Subject()))
	if err != nil {
		return refuse(events.CodeBadRequest, err.Error())
	}
	a.record.User = user
	if a.in, err = events.DecodeTokenRequest(a.req.Data()); err != nil {
		return refuse(events.CodeBadRequest, err.Error())
	}
	if user != a.in.UserID {
		return refuse(events.CodeForbidden, "the subject is another user's than userId")
	}
	if a.inboxes.collected(a.req.Reply()) {
		return refuse(events.CodeInternal, "a stream stores what is sent to the reply subject; see the worker's log")
	}
	a.caller = askerOf(a.req)
	a.decide()
	a.wanted, a.atHand = a.kept(a.in)
	return nil
}

// unanswerable ends a request that gets no answer.
func (a *answer) unanswerable() {
	a.record.User, _ = events.DecodeUserID(userIn(a.req.Subject()))
	a.refused(a.record, codeBadReply)
	a.noInbox("token.get")
	a.done(codeBadReply)
}

// give answers with a reply, or has the audit log do so.
func (a *answer) give(reply func() (events.TokenReply, error)) {
	var err error
	if a.body, err = a.encode(reply); err == nil && a.Audit.Required && !a.hold(forAudit) {
		clear(a.body)
		err = refuse(events.CodeBusy, "too many requests wait for the audit log; ask again")
	}
	if err != nil {
		a.fail(err)
		return
	}
	a.handedOut(a.record, a.recorded)
}

func (a *answer) encode(reply func() (events.TokenReply, error)) (body []byte, err error) {
	defer panicked(&err)
	out, err := reply()
	if err != nil {
		return nil, err
	}
	for _, e := range out.Expiries {
		if e.ExpiresAt != nil && (a.ends.IsZero() || e.ExpiresAt.Before(a.ends)) {
			a.ends = *e.ExpiresAt
		}
	}
	body, err = encodeReply(out, a.in.SealTo)
	if err == nil && int64(len(body)) > a.conn.MaxPayload() {
		return nil, refuse(events.CodeBadRequest, "the reply is larger than NATS takes; narrow the request by brokerType or accountId")
	}
	return body, err
}

// panicked, deferred, makes an error of a panic; its value is not kept.
func panicked(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("%w of token requests (%T)", errPanic, v)
	}
}

// recorded gives the tokens that the audit log tells of. It runs on the log's
// goroutine as a rule, which must not wait.
func (a *answer) recorded(err error) {
	defer a.caught()
	if err == nil && !a.holds() {
		go func() {
			defer a.caught()
			a.send(a.look())
		}()
		return
	}
	a.send(err)
}

func (a *answer) send(err error) {
	defer clear(a.body)
	if err != nil {
		a.fail(err)
		return
	}
	a.handed.Inc()
	if err := a.respond(a.req, a.body, nil); err != nil {
		a.log.Warn("a token reply could not be sent", zap.Error(err))
	}
	a.done(codeOK)
}

// fail answers without a token.
func (a *answer) fail(err error) {
	var refusal *refusal
	switch {
	case errors.As(err, &refusal):
	case outage(err):
		tracing.Log(a.ctx, a.log).Warn("a token request can't be answered now", zap.Error(err))
		refusal = refuse(events.CodeBusy, "what the worker depends on is away; ask again")
	default:
		tracing.Log(a.ctx, a.log).Error("a token request failed", zap.Error(err))
		refusal = refuse(events.CodeInternal, "see the worker's log")
	}
	a.refused(a.record, refusal.Code)
	a.requests.WithLabelValues(refusal.Code).Inc()
	if err := a.refuse(a.req, refusal); err != nil {
		a.log.Warn("a refusal could not be sent", zap.Error(err))
	}
	a.done(refusal.Code)
}

// done ends what is held for a request.
func (a *answer) done(code string) {
	if a.answered.Swap(true) {
		return
	}
	if a.end != nil {
		a.end(code)
	}
	a.cancel()
	a.hold("")
	a.atWork.Done()
}

// caught keeps a fault beside the request itself from ending the process.
func (a *answer) caught() {
	if v := recover(); v != nil {
		a.log.Error("a token request was not answered", zap.Error(fmt.Errorf("%w of token requests (%T)", errPanic, v)))
		a.done(events.CodeInternal)
	}
}

// refusalHeaders is the room for the headers of a refusal in a NATS message.
const refusalHeaders = 256

func (t *TokenService) refuse(req micro.Request, refusal *refusal) error {
	body, _ := json.Marshal(refusal) // strings and numbers only
	if int64(len(body)) > t.conn.MaxPayload()-refusalHeaders {
		short := *refusal
		short.Message = "no token can be given, for too many accounts to name them; narrow the request by brokerType or accountId"
		short.Unavailable, short.Refused = nil, nil
		body, _ = json.Marshal(&short)
	}
	return t.respond(req, body, nats.Header{micro.ErrorHeader: {refusal.Code}, micro.ErrorCodeHeader: {cmp.Or(events.CodeNumber[refusal.Code], events.MFACodeNumber[refusal.Code])}})
}

// refusal is the body of an error answer.
type refusal struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	// RetryAfterSeconds is set with events.CodeBusy.
	RetryAfterSeconds int64                       `json:"retryAfterSeconds,omitempty"`
	Unavailable       []events.UnavailableAccount `json:"unavailable,omitempty"`
	Refused           []events.RefusedResult      `json:"refused,omitempty"`
}

func (r *refusal) Error() string { return r.Code + ": " + r.Message }

func refuse(code, message string) *refusal {
	r := &refusal{Code: code, Message: message}
	if code == events.CodeBusy {
		r.RetryAfterSeconds = soon
	}
	return r
}
