package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/sealing"
)

// RefusedError is a worker's refusal of a request.
type RefusedError struct {
	// Code is one of the Code constants of package events; see docs/tokens.md for what to
	// do.
	Code string
	// Message is for a human.
	Message string
	// RetryAfter, with events.CodeBusy: an earlier request would fail too. 0: not known.
	RetryAfter time.Duration
	// Unavailable lists the requested accounts and why each has no token.
	Unavailable []events.UnavailableAccount
	// Refused has the result for each of TokenRequest.Refused.
	Refused []events.RefusedResult
}

func (e *RefusedError) Error() string { return "refused: " + e.Code + ": " + e.Message }

// Reconnect reports whether the user must connect or authenticate again.
func (e *RefusedError) Reconnect() bool {
	return e.Code == events.CodeUnknownUser || e.Code == events.CodeMustAct || e.Code == events.CodeExpired
}

// ErrNoWorker: no worker answers token requests.
var ErrNoWorker = errors.New("no worker answers token requests; is one running, with the same prefix?")

// Tokens requests the current tokens of a user. It retries while workers are busy or
// there is none, with growing pauses and not before the time that a worker asked for,
// until the deadline of ctx or the client's timeout. A refusal is a *RefusedError. A
// request that violates its contract is not sent: the error is an *events.InvalidError.
//
// With SealReplies the client sets in.SealTo; set it nowhere else, because nothing could
// open the reply.
func (c *Client) Tokens(ctx context.Context, in events.TokenRequest) (events.TokenReply, error) {
	if in.SealTo != nil {
		return events.TokenReply{}, &events.InvalidError{Message: events.TokenGetName, Problem: "sealTo: a key that the client does not have; use its option SealReplies"}
	}
	decode := events.DecodeTokenReply
	if c.sealReplies {
		key := c.replyKey.Public().JWK()
		in.SealTo = &key
		decode = func(body []byte) (events.TokenReply, error) { return sealing.OpenReply(body, c.replyKey) }
	}
	body, _ := json.Marshal(in) // texts and numbers only
	if _, err := events.DecodeTokenRequest(body); err != nil {
		return events.TokenReply{}, err
	}
	var reply events.TokenReply
	err := c.retry(ctx, DefaultTimeout, transientOnRequest, func(ctx context.Context) error {
		answer, err := c.request(ctx, c.subjects.TokenGet(in.UserID), body)
		if err == nil {
			reply, err = decode(answer)
		}
		return err
	})
	if err != nil {
		return events.TokenReply{}, fmt.Errorf("asking for tokens: %w", err)
	}
	return reply, nil
}

// CompleteMFA sends the code that a grant's refresh waits for. It does not retry, because
// the institution may have received the code. A refusal is a *RefusedError; after
// events.CodeBusy request tokens before you try again.
func (c *Client) CompleteMFA(ctx context.Context, in events.MFARequest) (events.MFAReply, error) {
	body, err := in.Encode()
	if err != nil {
		return events.MFAReply{}, err
	}
	if _, err := events.DecodeMFARequest(body); err != nil {
		return events.MFAReply{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, DefaultTimeout)
	defer cancel()
	var reply events.MFAReply
	answer, err := c.request(ctx, c.subjects.TokenMFA(in.UserID), body)
	if err == nil {
		err = json.Unmarshal(answer, &reply)
	}
	if err != nil {
		return events.MFAReply{}, fmt.Errorf("completing a refresh with a code: %w", err)
	}
	return reply, nil
}

// request returns the answer of a worker. A refusal is a *RefusedError.
func (c *Client) request(ctx context.Context, subject string, body []byte) ([]byte, error) {
	msg, err := c.nc.RequestWithContext(ctx, subject, body)
	if errors.Is(err, nats.ErrNoResponders) {
		return nil, ErrNoWorker
	}
	if err != nil {
		return nil, err
	}
	code := msg.Header.Get(micro.ErrorHeader)
	if code == "" {
		return msg.Data, nil
	}
	var said struct {
		Message           string
		RetryAfterSeconds int64
		Unavailable       []events.UnavailableAccount
		Refused           []events.RefusedResult
	}
	_ = json.Unmarshal(msg.Data, &said) // the code alone is enough
	return nil, &RefusedError{Code: code, Message: said.Message, RetryAfter: time.Duration(min(max(said.RetryAfterSeconds, 0), maxRetryAfter)) * time.Second, Unavailable: said.Unavailable, Refused: said.Refused}
}

// maxRetryAfter limits RetryAfterSeconds.
const maxRetryAfter = 24 * 60 * 60

// transientOnRequest reports whether a retry of a token request may succeed.
func transientOnRequest(err error) bool {
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		return refused.Code == events.CodeBusy
	}
	return errors.Is(err, ErrNoWorker) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, nats.ErrReconnectBufExceeded)
}
