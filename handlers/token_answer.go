package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store/audit"
)

// receive runs on the subscription's goroutine; it waits for a free slot, so
// that requests queue in NATS and not here.
func (t *TokenService) receive(req micro.Request) {
	t.slots <- struct{}{}
	t.atWork.Add(1)
	select {
	case t.next <- req:
	default:
		go t.work(req)
	}
}

// work answers requests one after the other. The goroutine is kept since it has
// what a new one lacks: a stack of the size that is needed.
func (t *TokenService) work(req micro.Request) {
	for {
		t.answer(req)
		select {
		case req = <-t.next:
		case <-t.ended:
			return
		}
	}
}

// answer answers a request, or has the audit log do so.
func (t *TokenService) answer(req micro.Request) {
	a := &answer{TokenService: t, req: req}
	a.limit.begin(t.cfg.Timeout)
	defer a.caught()
	a.ctx, a.end = t.startSpan(&a.limit, req)
	a.record.Caller = t.callerOf(req)
	var err error
	if a.body, err = t.guard(a.ctx, req, &a.record); err != nil {
		a.fail(err)
		return
	}
	t.handedOut(a.record, a.recorded)
}

// answer is one on its way.
type answer struct {
	*TokenService
	req      micro.Request
	ctx      context.Context
	limit    timeLimit
	end      func(code string) // of the span
	record   audit.Record
	body     []byte
	answered atomic.Bool
}

// recorded gives the tokens that the audit log tells of. It runs on the log's
// goroutine as a rule.
func (a *answer) recorded(err error) {
	defer a.caught()
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
	a.limit.stop()
	<-a.slots
	a.atWork.Done()
}

// caught keeps a fault beside the request itself from ending the process.
func (a *answer) caught() {
	if v := recover(); v != nil {
		a.log.Error("a token request was not answered", zap.Error(fmt.Errorf("%w of token requests (%T)", errPanic, v)))
		a.done(events.CodeInternal)
	}
}

func (t *TokenService) refuse(req micro.Request, refusal *refusal) error {
	body, _ := json.Marshal(refusal) // strings and numbers only
	return t.respond(req, body, nats.Header{micro.ErrorHeader: {refusal.Code}, micro.ErrorCodeHeader: {events.CodeNumber[refusal.Code]}})
}

// respond answers a request past micro, which reads a request's state when its
// handler has returned; ours answer later.
func (t *TokenService) respond(req micro.Request, body []byte, header nats.Header) error {
	return t.conn.PublishMsg(&nats.Msg{Subject: req.Reply(), Header: header, Data: body})
}

// guard keeps a panic from ending the process; its value is not kept.
func (t *TokenService) guard(ctx context.Context, req micro.Request, record *audit.Record) (body []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w of token requests (%T)", errPanic, v)
		}
	}()
	subject := req.Subject()
	user, err := events.DecodeUserID(subject[strings.LastIndexByte(subject, '.')+1:])
	if err != nil {
		return nil, refuse(events.CodeBadRequest, err.Error())
	}
	record.User = user
	in, err := events.DecodeTokenRequest(req.Data())
	if err != nil {
		return nil, refuse(events.CodeBadRequest, err.Error())
	}
	if user != in.UserID {
		return nil, refuse(events.CodeForbidden, "the subject is another user's than userId")
	}
	reply, err := t.Get(ctx, in, record)
	if err != nil {
		return nil, err
	}
	body, err = encodeReply(reply, in.SealTo)
	if err == nil && int64(len(body)) > t.conn.MaxPayload() {
		return nil, refuse(events.CodeBadRequest, "the reply is larger than NATS takes; narrow the request by brokerType or accountId")
	}
	return body, err
}

// refusal is the body of an error answer.
type refusal struct {
	Code        string                      `json:"code"`
	Message     string                      `json:"message"`
	Unavailable []events.UnavailableAccount `json:"unavailable,omitempty"`
}

func (r *refusal) Error() string { return r.Code + ": " + r.Message }

func refuse(code, message string) *refusal { return &refusal{Code: code, Message: message} }
