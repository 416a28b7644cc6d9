package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
)

// receive runs on the subscription's goroutine and must not wait. It answers there what
// it can answer at once: another goroutine would cost nearly as much as the answer.
func (t *Service) receive(req request) {
	t.atWork.Add(1)
	a := &answer{Service: t, req: req, cancel: func() {}}
	defer a.recoverPanic()
	a.ctx, a.end = t.startSpan(context.Background(), req, events.TokenGetName, t.opts.Subjects.TokenGetAll())
	a.record.Caller = t.callerOf(req)
	if !t.inboxes.Contains(req.Reply()) {
		a.unanswerable()
		return
	}
	if err := a.read(); err != nil {
		a.fail(err)
		return
	}
	if a.from != nil {
		a.answerWith(func() (*reply, error) { return t.reply(a.ctx, a.in, a.wanted, &a.record) })
		return
	}
	if !a.waitFor(forWork) {
		a.fail(refuse(events.CodeBusy, "too many requests wait; ask again"))
		return
	}
	a.ctx, a.cancel = context.WithTimeout(a.ctx, t.opts.Config.Timeout)
	go func() {
		defer a.recoverPanic()
		a.answerWith(func() (*reply, error) {
			return t.get(a.ctx, a.in, &a.record, requester{a.caller, a.waitFor, func(r *reading) { a.from = r }})
		})
	}()
}

// answer is a request and what becomes of it.
type answer struct {
	*Service
	req      request
	ctx      context.Context
	cancel   context.CancelFunc
	end      func(code string) // of the span
	in       events.TokenRequest
	wanted   []*store.Grant // if nothing has to be waited for
	record   audit.Record
	body     []byte
	answered atomic.Bool
	// caller has a place among those that wait for waitsFor.
	caller, waitsFor string

	// from is what was read for the answer (nil: nothing yet), which has tokens of the grants
	// in opened. The first of them expires at ends; zero: none does.
	from   *reading
	opened []*store.Grant
	ends   time.Time
}

// waitFor exchanges the answer's place for one among those that wait for something else,
// or for none (""). If no place is free it keeps the one it has.
func (a *answer) waitFor(what string) bool {
	if what != "" && !a.places.take(what, a.caller, maxWaiting) {
		return false
	}
	if a.waitsFor != "" {
		a.places.free(a.waitsFor, a.caller)
	}
	a.waitsFor = what
	return true
}

// read decodes the request and checks whether it can be answered at once.
func (a *answer) read() (err error) {
	defer panicToError(&err)
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
	a.caller = requesterOf(a.req)
	a.wanted, a.from = a.fromMemory(a.in)
	return nil
}

// unanswerable ends a request that gets no answer.
func (a *answer) unanswerable() {
	a.record.User, _ = events.DecodeUserID(userIn(a.req.Subject()))
	a.recordRefusal(a.record, codeBadReply)
	a.logNoInbox(events.TokenGetName)
	a.done(codeBadReply)
}

// answerWith answers with a reply once the audit log permits it.
func (a *answer) answerWith(build func() (*reply, error)) {
	var err error
	if a.body, err = a.encode(build); err == nil && a.opts.Audit.Required && !a.waitFor(forAudit) {
		err = refuse(events.CodeBusy, "too many requests wait for the audit log; ask again")
	}
	if err != nil {
		a.fail(err)
		return
	}
	a.recordHandOut(a.record, a.recorded)
}

func (a *answer) encode(build func() (*reply, error)) (body []byte, err error) {
	defer panicToError(&err)
	out, err := build()
	if err != nil {
		return nil, err
	}
	a.opened = out.grants
	for _, e := range out.Expiries {
		if e.ExpiresAt != nil && (a.ends.IsZero() || e.ExpiresAt.Before(a.ends)) {
			a.ends = *e.ExpiresAt
		}
	}
	body, err = out.encode(a.in.SealTo)
	if err == nil && int64(len(body)) > a.conn.MaxPayload() {
		clear(body)
		return nil, refuse(events.CodeBadRequest, "the reply is larger than NATS takes; narrow the request by brokerType or accountId")
	}
	return body, err
}

// panicError describes a panic by its type: the value could be anything, even a token.
func panicError(v any) error { return fmt.Errorf("panic in a handler of token requests (%T)", v) }

// panicToError, deferred, turns a panic into an error.
func panicToError(err *error) {
	if v := recover(); v != nil {
		*err = panicError(v)
	}
}

// recorded sends the tokens whose record was written. It usually runs on the audit
// log's goroutine, which must not wait.
func (a *answer) recorded(err error) {
	defer a.recoverPanic()
	if err == nil && !a.upToDate() {
		go func() {
			defer a.recoverPanic()
			a.send(a.recheck())
		}()
		return
	}
	a.send(err)
}

func (a *answer) send(err error) {
	if err == nil && a.conn.IsReconnecting() { // the client library would keep the tokens until that is over
		err = refuse(events.CodeBusy, "the connection to NATS was interrupted; ask again")
	}
	if err != nil {
		a.fail(err)
		return
	}
	if err := a.respond(a.req, a.body, nil); err != nil {
		a.opts.Log.Warn("a token reply could not be sent", zap.Error(err))
	}
	a.done(codeOK)
}

// fail answers without a token.
func (a *answer) fail(err error) {
	var refusal *refusal
	switch {
	case errors.As(err, &refusal):
	case refresher.Outage(err):
		tracing.Log(a.ctx, a.opts.Log).Warn("a token request can't be answered now", zap.Error(err))
		refusal = refuse(events.CodeBusy, "what the worker depends on is away; ask again")
	default:
		tracing.Log(a.ctx, a.opts.Log).Error("a token request failed", zap.Error(err))
		refusal = refuse(events.CodeInternal, "see the worker's log")
	}
	a.recordRefusal(a.record, refusal.Code)
	if err := a.refuse(a.req, refusal); err != nil {
		a.opts.Log.Warn("a refusal could not be sent", zap.Error(err))
	}
	a.done(refusal.Code)
}

// done frees what a request has taken, and wipes its tokens.
func (a *answer) done(code string) {
	if a.answered.Swap(true) {
		return
	}
	clear(a.body)
	if a.end != nil {
		a.end(code)
	}
	a.cancel()
	a.req.done(code)
	a.waitFor("")
	a.atWork.Done()
}

// recoverPanic, deferred, keeps a panic from ending the process.
func (a *answer) recoverPanic() {
	if v := recover(); v != nil {
		a.opts.Log.Error("a token request was not answered", zap.Error(panicError(v)))
		a.done(events.CodeInternal)
	}
}

// refusalHeaders is the size reserved for the headers of a refusal in a NATS message.
const refusalHeaders = 256

func (t *Service) refuse(req request, refusal *refusal) error {
	body, _ := json.Marshal(refusal) // strings and numbers only
	if int64(len(body)) > t.conn.MaxPayload()-refusalHeaders {
		short := *refusal
		short.Message = "no token can be given, for too many accounts to name them; narrow the request by brokerType or accountId"
		short.Unavailable, short.Refused = nil, nil
		body, _ = json.Marshal(&short)
	}
	return t.respond(req, body, nats.Header{micro.ErrorHeader: {refusal.Code}, micro.ErrorCodeHeader: {numberOf(refusal.Code)}})
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
		r.RetryAfterSeconds = retrySeconds
	}
	return r
}

// startSpan starts the span of a request. The subject names a user and stays out of it.
func (t *Service) startSpan(ctx context.Context, req request, name, subject string) (_ context.Context, end func(code string)) {
	ctx = tracing.FromHeader(req.Headers()).Continue(ctx)
	if !t.opts.Tracer.Enabled() {
		return ctx, func(string) {}
	}
	ctx, span := t.opts.Tracer.Start(ctx, name, trace.SpanKindServer,
		trace.WithAttributes(tracing.Messaging("process", subject)...))
	return ctx, func(code string) {
		span.SetAttributes(tracing.Outcome(code))
		if code == events.CodeBusy || code == events.CodeInternal {
			span.SetStatus(codes.Error, "")
		}
		span.End()
	}
}
