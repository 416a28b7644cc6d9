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
)

// RefusedError is a token request that a worker refused.
type RefusedError struct {
	// Code is one of the Code constants of package events. It decides what to
	// do; see docs/tokens.md.
	Code string
	// Message is for a human.
	Message string
	// RetryAfter, with events.CodeBusy: asking earlier does not help. 0: not known.
	RetryAfter time.Duration
	// Unavailable names the accounts that were asked for and why each has no
	// token.
	Unavailable []events.UnavailableAccount
	// Refused tells what became of each of TokenRequest.Refused.
	Refused []events.RefusedResult
}

func (e *RefusedError) Error() string { return "refused: " + e.Code + ": " + e.Message }

// Reconnect reports whether the user has to connect, or to authenticate, again.
func (e *RefusedError) Reconnect() bool {
	return e.Code == events.CodeUnknownUser || e.Code == events.CodeMustAct || e.Code == events.CodeExpired
}

// ErrNoWorker: no worker is there to answer token requests.
var ErrNoWorker = errors.New("no worker answers token requests; is one running, with the same prefix?")

// Tokens asks for the current tokens of a user. While workers are busy or
// none is there it asks again, with growing pauses and not before a worker said
// that it helps, until the deadline of ctx
// (or the client's timeout). A refusal is a *RefusedError; ErrNoWorker says
// that nobody was there; a request that breaks its contract is an
// *events.InvalidError and is not sent.
func (c *Client) Tokens(ctx context.Context, in events.TokenRequest) (events.TokenReply, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return events.TokenReply{}, fmt.Errorf("encoding a token request: %w", err)
	}
	if _, err := events.DecodeTokenRequest(body); err != nil {
		return events.TokenReply{}, err
	}
	var reply events.TokenReply
	err = c.retry(ctx, DefaultTimeout, passingOnRequest, func(ctx context.Context) error {
		msg, err := c.nc.RequestWithContext(ctx, c.subjects.TokenGet(in.UserID), body)
		if err != nil {
			return err
		}
		if err := refusalIn(msg); err != nil {
			return err
		}
		reply, err = events.DecodeTokenReply(msg.Data)
		return err
	})
	if errors.Is(err, nats.ErrNoResponders) {
		err = ErrNoWorker
	}
	if err != nil {
		return events.TokenReply{}, fmt.Errorf("asking for tokens: %w", err)
	}
	return reply, nil
}

// CompleteMFA brings the code for which a grant's refresh waits. It is asked once: a
// code that may have been presented is not presented again. A refusal is a *RefusedError;
// after events.CodeBusy ask for tokens before another try.
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
	msg, err := c.nc.RequestWithContext(ctx, c.subjects.TokenMFA(in.UserID), body)
	if err == nil {
		err = refusalIn(msg)
	}
	if err == nil {
		err = json.Unmarshal(msg.Data, &reply)
	}
	if errors.Is(err, nats.ErrNoResponders) {
		err = ErrNoWorker
	}
	if err != nil {
		return events.MFAReply{}, fmt.Errorf("completing a refresh with a code: %w", err)
	}
	return reply, nil
}

// refusalIn returns the *RefusedError that a reply is, if it is one.
func refusalIn(msg *nats.Msg) error {
	code := msg.Header.Get(micro.ErrorHeader)
	if code == "" {
		return nil
	}
	var said struct {
		Message           string
		RetryAfterSeconds int64
		Unavailable       []events.UnavailableAccount
		Refused           []events.RefusedResult
	}
	_ = json.Unmarshal(msg.Data, &said) // the code alone will do
	return &RefusedError{Code: code, Message: said.Message, RetryAfter: time.Duration(min(max(said.RetryAfterSeconds, 0), maxRetryAfter)) * time.Second, Unavailable: said.Unavailable, Refused: said.Refused}
}

// maxRetryAfter bounds what a worker says, in seconds.
const maxRetryAfter = 24 * 60 * 60

// passingOnRequest reports whether a token request may succeed when repeated.
func passingOnRequest(err error) bool {
	var refused *RefusedError
	if errors.As(err, &refused) {
		return refused.Code == events.CodeBusy
	}
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, nats.ErrReconnectBufExceeded)
}
