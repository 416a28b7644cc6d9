package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
)

// receiveMFA accepts a user's code for a refresh that waits for one. The code itself is
// recorded nowhere.
func (t *Service) receiveMFA(req request) {
	record := audit.Record{Action: audit.Presented, Caller: t.callerOf(req)}
	if !t.inboxes.Contains(req.Reply()) {
		clear(req.Data())
		record.Outcome = codeBadReply
		t.opts.Audit.Log.Add(record)
		t.logNoInbox(events.TokenMFAName)
		req.done(codeBadReply)
		return
	}
	caller := requesterOf(req)
	if !t.places.take(forCodes, caller, maxWaiting) {
		clear(req.Data())
		t.answerMFA(context.Background(), req, record, nil, refuse(events.CodeBusy, "too many requests wait; the code was not presented"))
		return
	}
	t.atWork.Go(func() {
		defer t.places.free(forCodes, caller)
		ctx, cancel := context.WithTimeout(context.Background(), t.opts.Config.Timeout)
		defer cancel()
		ctx, end := t.startSpan(ctx, req, events.TokenMFAName, t.opts.Subjects.TokenMFAAll())
		body, err := t.completeMFA(ctx, req, &record)
		end(t.answerMFA(ctx, req, record, body, err))
	})
}

// completeMFA presents the code in a request.
func (t *Service) completeMFA(ctx context.Context, req request, record *audit.Record) (body []byte, err error) {
	defer panicToError(&err)
	defer clear(req.Data())
	user, err := events.DecodeUserID(userIn(req.Subject()))
	if err != nil {
		return nil, refuse(events.CodeBadRequest, err.Error())
	}
	record.User = user
	in, err := events.DecodeMFARequest(req.Data())
	if err != nil {
		return nil, refuse(events.CodeBadRequest, err.Error())
	}
	if user != in.UserID {
		return nil, refuse(events.CodeForbidden, "the subject is another user's than userId")
	}
	g, err := t.opts.Store.Get(ctx, in.GrantID)
	if errors.Is(err, store.ErrNotFound) || err == nil && (g.UserID != user || g.State == store.Revoked) {
		return nil, refuse(events.CodeUnknownUser, "the user has no such grant")
	}
	if err != nil {
		return nil, err
	}
	record.Grants = []audit.Grant{g.AuditView(g.AccountIDs())}
	if in.Version != 0 && in.Version != g.Version {
		return nil, refuse(events.CodeOtherVersion, "the grant has changed since the code was asked for")
	}
	done, err := t.opts.Refresher.CompleteMFA(ctx, g, in.Code)
	t.grants.invalidate(user) // its event may be on the way still
	if err != nil {
		return nil, mfaRefusal(err)
	}
	reply := events.MFAReply{GrantID: g.ID}
	if done != nil {
		reply.Version = done.Version
		if done.Access != nil {
			reply.ExpiresAt = done.Access.ExpiresAt
		}
	}
	body, err = json.Marshal(reply)
	if err != nil {
		return nil, fmt.Errorf("encoding a reply to a code: %w", err)
	}
	return body, nil
}

// mfaRefusal turns an error into what it means for the user.
func mfaRefusal(err error) error {
	var later *refresher.LaterError
	switch {
	case errors.Is(err, refresher.ErrNoStep):
		return refuse(events.CodeNotPending, "no refresh of the grant waits for a code")
	case errors.Is(err, refresher.ErrCodeLate):
		return refuse(events.CodeLate, "the code comes too late; the user has to connect again")
	case errors.Is(err, refresher.ErrCodeExpired):
		return refuse(events.CodeOutdated, "the institution says that the code has expired; see whether the grant still waits for one")
	case errors.Is(err, refresher.ErrCodeRefused):
		return refuse(events.CodeRefused, "the institution does not take the code; see whether the grant still waits for one")
	case errors.Is(err, store.ErrStale), errors.Is(err, store.ErrNotFound):
		return refuse(events.CodeOtherVersion, "the grant has changed meanwhile")
	case errors.As(err, &later):
		busy := refuse(events.CodeBusy, "no refresh may start at the broker now; the code was not presented")
		busy.RetryAfterSeconds = max(int64(math.Ceil(later.After.Seconds())), retrySeconds)
		return busy
	case errors.As(err, new(*refresher.Failure)):
		return refuse(events.CodeBusy, "there was no answer that decides; ask for tokens before presenting the code again")
	}
	return err
}

// answerMFA answers a request with a code, and returns the outcome for its span.
func (t *Service) answerMFA(ctx context.Context, req request, record audit.Record, body []byte, err error) string {
	code := codeOK
	if err != nil {
		var refusal *refusal
		switch {
		case errors.As(err, &refusal):
		case refresher.Outage(err) || errors.Is(err, refresher.ErrStopping):
			refusal = refuse(events.CodeBusy, "what the worker depends on is away; the code was not presented")
		default:
			tracing.Log(ctx, t.opts.Log).Error("a request with a code failed", zap.Error(err))
			refusal = refuse(events.CodeInternal, "see the worker's log")
		}
		code = refusal.Code
		err = t.refuse(req, refusal)
	} else {
		err = t.respond(req, body, nil)
	}
	record.Outcome = code
	t.opts.Audit.Log.Add(record)
	if err != nil {
		tracing.Log(ctx, t.opts.Log).Warn("a reply to a request with a code could not be sent", zap.Error(err))
	}
	req.done(code)
	return code
}
