package refresher

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/options"
	"github.com/latchkey/latchkey/events/secret"
)

// Mesh is a client of Mesh's API for client managed tokens.
type Mesh struct {
	options   MeshOptions
	transport http.RoundTripper
}

// MeshOptions for NewMesh. Only the credentials may be empty.
type MeshOptions struct {
	URL          string
	ClientID     string
	ClientSecret secret.Text
	// Timeout bounds one call from connecting to the last byte.
	Timeout time.Duration
	// Now is the clock against which NotAfter and Retry-After are read.
	Now func() time.Time
}

// NewMesh returns a client that makes each call over a connection of its own.
func NewMesh(o MeshOptions) (*Mesh, error) {
	if err := options.Require("a client of Mesh", o, "URL", "Timeout", "Now"); err != nil {
		return nil, err
	}
	o.URL = strings.TrimRight(o.URL, "/")
	return &Mesh{options: o, transport: newTransport()}, nil
}

// RefreshRequest is what POST /api/v1/token/refresh takes
// (@meshconnect/node-api 2.0.28, RefreshTokenRequest).
type RefreshRequest struct {
	BrokerType   string
	RefreshToken secret.Text
	// CreateNewRefreshToken asks for the refresh token itself to be renewed.
	CreateNewRefreshToken bool
	// AccessToken goes along for brokers that need it.
	AccessToken secret.Text
	TradeToken  secret.Text
	Metadata    map[string]secret.Text
	// MFACode is the user's, which completes a refresh that was answered mfaRequired.
	MFACode secret.Text
	// Current are tokens that the grant has, and that are not sent: an answer that repeats
	// only these, or those that are sent, brings nothing new.
	Current []secret.Text
	// Spare are tokens that came before and that the grant has no use for.
	Spare []secret.Text
	// NotAfter is until when, by the wall clock, the request may be sent. Zero: at any time.
	NotAfter time.Time
}

// has reports whether the grant has a token, or sends it.
func (r RefreshRequest) has(token secret.Text) bool {
	return token == r.RefreshToken || token == r.AccessToken || slices.Contains(r.Current, token)
}

type refreshBody struct {
	Type                  string            `json:"type"`
	RefreshToken          string            `json:"refreshToken"`
	CreateNewRefreshToken bool              `json:"createNewRefreshToken,omitempty"`
	AccessToken           string            `json:"accessToken,omitempty"`
	TradeToken            string            `json:"tradeToken,omitempty"`
	MFACode               string            `json:"mfaCode,omitempty"`
	Metadata              map[string]string `json:"metadata,omitempty"`
}

// Refresh presents a refresh token at most once. An answer with a new token is returned
// whatever its statuses say, without echoes of the presented token. Every error is a
// *Failure; a request that came too late to be sent has the class uncalled.
func (m *Mesh) Refresh(ctx context.Context, r RefreshRequest) (answer Answer, err error) {
	ctx, span := m.startSpan(ctx, http.MethodPost, "/api/v1/token/refresh")
	defer func() { endRefresh(span, err) }()
	ctx, cancel := context.WithTimeout(ctx, m.options.Timeout) // with what is asked after a refusal
	defer cancel()
	metadata := make(map[string]string, len(r.Metadata))
	for name, value := range r.Metadata {
		metadata[name] = value.Reveal()
	}
	reply, sent, err := m.exchange(ctx, http.MethodPost, "/api/v1/token/refresh", refreshBody{
		Type: r.BrokerType, RefreshToken: r.RefreshToken.Reveal(), CreateNewRefreshToken: r.CreateNewRefreshToken,
		AccessToken: r.AccessToken.Reveal(), TradeToken: r.TradeToken.Reveal(), MFACode: r.MFACode.Reveal(), Metadata: metadata,
	}, r.NotAfter)
	if errors.Is(err, errTooLate) {
		return Answer{}, &Failure{Class: notSent, Detail: "not sent", Err: err}
	}
	if err != nil {
		return Answer{}, &Failure{Class: Transient, Ambiguous: sent, Detail: "no answer", Err: err}
	}
	in := readAnswer(reply)
	defer clear(reply.body)
	in.forget(r.RefreshToken)
	in.useUnplaced(r.has)
	f := classify(in.statuses, in.hasAccessToken())
	if reply.cut != nil {
		f = &Failure{Class: Transient, Ambiguous: true, Detail: in.detail(), Err: reply.cut}
	}
	a, err := in.outcome(r, f)
	refresh, other := in.all()
	known := slices.Concat([]secret.Text{r.RefreshToken, r.AccessToken, r.TradeToken, r.MFACode}, r.Current, r.Spare, refresh, other)
	for _, value := range r.Metadata {
		if len(value.Reveal()) >= sharedPart {
			known = append(known, value)
		}
	}
	if err == nil {
		a.Rest, a.Doubtful = bodyToKeep(reply.body, in.unread.doubt(known, false), true)
		if a.Contradicts != nil {
			a.Contradicts.RetryAfter = retryAfter(reply.header, m.options.Now())
		}
		return a, nil
	}
	f = AsFailure(err)
	f.stripTokens(known)
	if f.Class == Denied {
		f = m.whoseRefusal(ctx, f)
	}
	f.AccessTokenUnwanted = f.AccessTokenMissing && !r.AccessToken.Empty()
	f.AccessTokenMissing = f.AccessTokenMissing && r.AccessToken.Empty()
	f.AskedForRefreshToken = f.Refusal() && r.CreateNewRefreshToken
	switch f.Class {
	case RateLimited, Transient, Unlawful:
		f.RetryAfter = retryAfter(reply.header, m.options.Now())
	}
	f.Answer = in.useless(r, f)
	doubt := in.unread.doubt(known, f.Ambiguous)
	for _, l := range f.Answer.Unplaced {
		if doubt = max(doubt, doubtful); !l.Foreign {
			doubt = named
		}
	}
	f.Answer.Rest, f.Answer.Doubtful = bodyToKeep(reply.body, doubt, false)
	return Answer{}, f
}

// outcome returns what a transcript brings. f is what its statuses say, which counts
// only where the answer has no new tokens.
func (t *transcript) outcome(r RefreshRequest, f *Failure) (Answer, error) {
	a := t.Answer
	fresh := a.carries(func(token secret.Text) bool { return !r.has(token) })
	switch {
	case fresh && t.says("mfarequired") && normal(t.content) != "succeeded":
		// The access token finishes nothing, whatever the other statuses are.
		f = &Failure{Class: MustAct, Reason: events.ReasonMFARequired, Detail: t.detail(), ErrorType: token(t.errorType), ErrorHash: token(t.errorHash), RefreshToken: a.NewRefreshToken(), MFAAnswer: a}
		f.Interim, f.InterimLifetime = a.interim(r.AccessToken)
		return Answer{}, f
	case f == nil:
		return a, nil
	case !fresh:
		return Answer{}, f
	case t.contradict() || a.Partial:
		a.Contradicts = f
	}
	return a, nil
}

// useless returns the unknown tokens in an answer that brought the grant none.
func (t *transcript) useless(r RefreshRequest, f *Failure) Answer {
	known := func(token secret.Text) bool {
		return token.Empty() || token == f.Interim || token == f.RefreshToken || r.has(token) || slices.Contains(r.Spare, token)
	}
	var a Answer
	refresh, other := t.all()
	for i, token := range slices.Concat(refresh, other) {
		if !known(token) {
			a.Unplaced = append(a.Unplaced, UnplacedToken{Token: token, Refresh: i < len(refresh)})
		}
	}
	return a
}

// classify returns what the statuses say; nil: success. tokens: there is an access token.
func classify(in statuses, tokens bool) *Failure {
	if in.http < 300 && in.readable && (in.envelope == "" || in.envelope == "ok") && in.content == "succeeded" && tokens {
		return nil
	}
	return in.failure()
}

// contradict reports whether a status says that there are no tokens.
func (in statuses) contradict() bool {
	return in.http >= 300 || in.envelope != "" && in.envelope != "ok" && in.envelope != "succeeded" || in.content != "" && in.content != "succeeded"
}
