package refresher

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
)

// Mesh is a client of Mesh's API for client managed tokens.
type Mesh struct {
	url          string
	clientID     string
	clientSecret secret.Text
	http         *http.Client
	timeout      time.Duration
	now          func() time.Time
}

// MeshOptions for NewMesh.
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
func NewMesh(o MeshOptions) *Mesh {
	return &Mesh{
		url: strings.TrimRight(o.URL, "/"), clientID: o.ClientID, clientSecret: o.ClientSecret,
		timeout: o.Timeout, now: o.Now,
		http: &http.Client{
			Transport: newTransport(),
			// A redirect would post the tokens elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
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
	// MFACode is the user's, which completes a refresh that was answered mfaRequired.
	MFACode secret.Text
	// Held are tokens that the grant has: an answer that repeats one of them, or one
	// that goes out, brings nothing new. They are not sent.
	Held []secret.Text
	// Known are tokens that came before and that the grant has no use for.
	Known []secret.Text
	// NotAfter is until when, by the wall clock, the request may be sent. Zero:
	// whenever.
	NotAfter time.Time
}

// held reports whether a token is none that an answer could bring.
func (r RefreshRequest) held(token secret.Text) bool {
	return token == r.RefreshToken || token == r.AccessToken || slices.Contains(r.Held, token)
}

type refreshBody struct {
	Type                  string `json:"type"`
	RefreshToken          string `json:"refreshToken"`
	CreateNewRefreshToken bool   `json:"createNewRefreshToken,omitempty"`
	AccessToken           string `json:"accessToken,omitempty"`
	TradeToken            string `json:"tradeToken,omitempty"`
	MFACode               string `json:"mfaCode,omitempty"`
}

// Refresh presents a refresh token at most once. An answer that carries a new
// token is returned whatever its statuses say, without the echoes of the refresh
// token that went out; they are read where there is none. Every error is a
// *Failure; one of a request that came too late to be sent has the class of a call
// that was not made.
func (m *Mesh) Refresh(ctx context.Context, r RefreshRequest) (answer Answer, err error) {
	ctx, span := m.startSpan(ctx, http.MethodPost, "/api/v1/token/refresh")
	defer func() { endRefresh(span, err) }()
	reply, sent, err := m.exchange(ctx, http.MethodPost, "/api/v1/token/refresh", refreshBody{
		Type: r.BrokerType, RefreshToken: r.RefreshToken.Reveal(), CreateNewRefreshToken: r.CreateNewRefreshToken,
		AccessToken: r.AccessToken.Reveal(), TradeToken: r.TradeToken.Reveal(), MFACode: r.MFACode.Reveal(),
	}, r.NotAfter)
	if errors.Is(err, errTooLate) {
		return Answer{}, &Failure{Class: uncalled, Detail: "not sent", Err: err}
	}
	if err != nil {
		return Answer{}, &Failure{Class: Transient, Ambiguous: sent, Detail: "no answer", Err: err}
	}
	in := readAnswer(reply)
	defer clear(reply.body)
	in.forget(r.RefreshToken)
	in.useLoose(r.held)
	f := classify(in.statuses, in.hasAccessToken())
	if reply.cut != nil {
		f = &Failure{Class: Transient, Ambiguous: true, Detail: in.detail(), Err: reply.cut}
	}
	if f != nil && (f.Class == RateLimited || f.Class == Transient) {
		f.RetryAfter = retryAfter(reply.header, m.now())
	}
	a, err := in.outcome(r, f)
	whole, binary := secret.Text{}, false
	if len(reply.body) > 0 && (in.unread || err != nil) {
		whole, binary = rest(reply.body)
	}
	if err == nil {
		if in.unread {
			a.Rest = whole
		}
		return a, nil
	}
	f = AsFailure(err)
	f.Answer = in.useless(r, f)
	refresh, other := f.Answer.all()
	f.Nothing = len(refresh)+len(other) == 0
	if !f.Nothing || in.unread || binary && reply.status < 300 {
		f.Answer.Rest = whole
	}
	return Answer{}, f
}

// outcome says what a transcript brings, given what its statuses say: tokens count
// for more than words. Only what carries none but those that went out or are held
// is judged by its statuses.
func (t *transcript) outcome(r RefreshRequest, f *Failure) (Answer, error) {
	a := t.Answer
	fresh := a.carries(func(token secret.Text) bool { return !r.held(token) })
	switch {
	case fresh && t.content == "mfaRequired":
		// The access token finishes nothing, whatever the other statuses are.
		f = &Failure{Class: MustAct, Reason: events.ReasonMFARequired, Detail: t.detail(), RefreshToken: a.NewRefreshToken()}
		f.Interim, f.InterimFor = a.interim(r.AccessToken)
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

// useless returns what an answer that brought no tokens has of them: those that are
// not known.
func (t *transcript) useless(r RefreshRequest, f *Failure) Answer {
	known := func(token secret.Text) bool {
		return token.Empty() || token == f.Interim || token == f.RefreshToken || r.held(token) || slices.Contains(r.Known, token)
	}
	var a Answer
	refresh, other := t.all()
	for _, token := range refresh {
		if !known(token) {
			a.Loose = append(a.Loose, LooseToken{Token: token, Refresh: true})
		}
	}
	for _, token := range other {
		if !known(token) {
			a.Loose = append(a.Loose, LooseToken{Token: token})
		}
	}
	return a
}

// classify reads both the HTTP status and the status in the body, which can
// differ. It returns nil for an answer that carries tokens. Where they
// disagree, the reading that gives up less wins.
//
// What it returns is what the statuses alone say. tokens: the answer carries an
// access token.
func classify(in statuses, tokens bool) *Failure {
	fail := func(class Class, ambiguous bool, reason events.Reason) *Failure {
		return &Failure{Class: class, Ambiguous: ambiguous, Reason: reason, Detail: in.detail()}
	}
	http := in.http
	switch {
	case http == 401 || http == 403:
		return fail(Denied, false, "")
	case http == 429 || in.envelope == "tooManyRequest":
		return fail(RateLimited, false, "")
	case http >= 500 || http == 408:
		// A gateway's 5xx says nothing about what happened behind it.
		return fail(Transient, true, "")
	case !in.readable:
		return fail(Transient, http < 300, "")
	}
	switch in.envelope {
	case "serverFailure":
		return fail(Transient, true, "")
	case "badRequest":
		return fail(BadRequest, false, events.ReasonBadRequest)
	case "notFound":
		return fail(Dead, false, events.ReasonNotFound)
	case "", "ok":
		if http >= 300 {
			return fail(Transient, false, "")
		}
	default:
		// conflict, locked, permissionDenied, unavailableForLegalReasons and
		// whatever is added later: nothing was decided about the token.
		return fail(Transient, false, "")
	}
	switch {
	case !in.hasContent:
		return fail(Transient, true, "")
	case in.content == "failed":
		return fail(Dead, false, events.ReasonRejected)
	case in.content == "mfaRequired":
		return fail(MustAct, false, events.ReasonMFARequired)
	case in.content == "succeeded" && tokens:
		return nil
	}
	return fail(Transient, true, "")
}

var knownStatuses = map[string]bool{
	"ok": true, "serverFailure": true, "permissionDenied": true, "badRequest": true, "notFound": true, "conflict": true,
	"tooManyRequest": true, "locked": true, "unavailableForLegalReasons": true, "succeeded": true, "failed": true, "mfaRequired": true,
}

// detail names the statuses, as far as they are known words.
func (in statuses) detail() string {
	known := func(status string) string {
		if knownStatuses[status] {
			return status
		}
		return "other"
	}
	text := fmt.Sprintf("HTTP %d", in.http)
	if !in.readable {
		return text + ", not the JSON expected"
	}
	if in.envelope != "" {
		text += ", status " + known(in.envelope)
	}
	if in.hasContent && in.content != "" {
		text += ", content " + known(in.content)
	}
	return text
}

// contradict reports whether a status says that there are no tokens. That one is
// missing says nothing.
func (in statuses) contradict() bool {
	return in.http >= 300 || in.envelope != "" && in.envelope != "ok" && in.envelope != "succeeded" || in.content != "" && in.content != "succeeded"
}

// retryAfter reads a Retry-After header in either of its forms (RFC 9110).
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil && seconds > 0 {
		return min(time.Duration(seconds), 24*60*60) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil && at.After(now) {
		return min(at.Sub(now), 24*time.Hour)
	}
	return 0
}
