package tokens

import (
	"context"
	"encoding/json"
	"errors"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
)

// receiveKeys answers with the keys, whatever the body of the request.
func (t *Service) receiveKeys(req request) {
	if !t.inboxes.Contains(req.Reply()) {
		t.logNoInbox("token.keys")
		req.done(codeBadReply)
		return
	}
	answered := func(err error) {
		if err != nil {
			t.opts.Log.Warn("a reply to a request for keys could not be sent", zap.Error(err))
		}
	}
	caller := requesterOf(req)
	if !t.places.take(forConnectKeys, caller, maxWaiting) {
		answered(t.refuse(req, refuse(events.CodeBusy, "too many requests wait; ask again")))
		req.done(events.CodeBusy)
		return
	}
	t.atWork.Go(func() {
		defer t.places.free(forConnectKeys, caller)
		ctx, cancel := context.WithTimeout(context.Background(), t.opts.Config.Timeout)
		defer cancel()
		body, err := t.publicKeys(ctx)
		if err == nil {
			answered(t.respond(req, body, nil))
			req.done(codeOK)
			return
		}
		refusal, expected := errors.AsType[*refusal](err)
		if !expected {
			t.opts.Log.Error("a request for keys failed", zap.Error(err))
			refusal = refuse(events.CodeInternal, "see the worker's log")
		}
		answered(t.refuse(req, refusal))
		req.done(refusal.Code)
	})
}

func (t *Service) publicKeys(ctx context.Context) (body []byte, err error) {
	defer panicToError(&err)
	keys, err := t.opts.Keys.Public(ctx)
	if err != nil {
		t.opts.Log.Warn("the connect keys can't be given out now", zap.Error(err))
		return nil, refuse(events.CodeBusy, "the keys are not available now; retry later")
	}
	return json.Marshal(keys)
}
