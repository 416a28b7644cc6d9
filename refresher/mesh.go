package refresher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
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
	// NotAfter is until when, by the wall clock, the request may be sent. Zero:
	// whenever.
	NotAfter time.Time
}

type refreshBody struct {
	Type                  string `json:"type"`
	RefreshToken          string `json:"refreshToken"`
	CreateNewRefreshToken bool   `json:"createNewRefreshToken,omitempty"`
	AccessToken           string `json:"accessToken,omitempty"`
	TradeToken            string `json:"tradeToken,omitempty"`
	MFACode               string `json:"mfaCode,omitempty"`
}

type refreshAnswer struct {
	Status  string `json:"status"`
	Content *struct {
		Status              string `json:"status"`
		BrokerAccountTokens []struct {
			Account      *answerAccount `json:"account"`
			AccessToken  secret.Text    `json:"accessToken"`
			RefreshToken secret.Text    `json:"refreshToken"`
			TokenID      secret.Text    `json:"tokenId"`
		} `json:"brokerAccountTokens"`
		AccessToken                  secret.Text    `json:"accessToken"`
		RefreshToken                 secret.Text    `json:"refreshToken"`
		Account                      *answerAccount `json:"account"`
		ExpiresInSeconds             events.Seconds `json:"expiresInSeconds"`
		RefreshTokenExpiresInSeconds events.Seconds `json:"refreshTokenExpiresInSeconds"`
	} `json:"content"`
}

type answerAccount struct {
	AccountID   string `json:"accountId"`
	AccountName string `json:"accountName"`
}

// Refresh presents a refresh token at most once and classifies what comes back.
// Every error is a *Failure; one of a request that came too late to be sent
// has the class of a call that was not made.
func (m *Mesh) Refresh(ctx context.Context, r RefreshRequest) (answer Answer, err error) {
	ctx, span := m.startSpan(ctx, http.MethodPost, "/api/v1/token/refresh")
	defer func() { endRefresh(span, err) }()
	reply, sent, err := m.call(ctx, http.MethodPost, "/api/v1/token/refresh", refreshBody{
		Type: r.BrokerType, RefreshToken: r.RefreshToken.Reveal(), CreateNewRefreshToken: r.CreateNewRefreshToken,
		AccessToken: r.AccessToken.Reveal(), TradeToken: r.TradeToken.Reveal(), MFACode: r.MFACode.Reveal(),
	}, r.NotAfter)
	if errors.Is(err, errTooLate) {
		return Answer{}, &Failure{Class: uncalled, Detail: "not sent", Err: err}
	}
	if err != nil {
		return Answer{}, &Failure{Class: Transient, Ambiguous: sent, Detail: "no answer", Err: err}
	}
	var in refreshAnswer
	err = json.Unmarshal(reply.body, &in)
	clear(reply.body)
	// A field of an unexpected type is passed over: the tokens beside it count.
	var mistyped *json.UnmarshalTypeError
	readable := err == nil || errors.As(err, &mistyped)
	if !readable {
		in = refreshAnswer{}
	}
	if f := classify(reply.status, readable, in); f != nil {
		if f.Class == MustAct {
			f.Interim, f.InterimFor = in.interim(r.AccessToken)
		}
		if f.Class == RateLimited || f.Class == Transient {
			f.RetryAfter = retryAfter(reply.header, m.now())
		}
		return Answer{}, f
	}
	a := in.answer()
	if a.size() > maxAnswer {
		return Answer{}, &Failure{Class: Transient, Ambiguous: true, Detail: "larger than can be kept"}
	}
	if a.RefreshToken.Equal(r.RefreshToken) {
		a.RefreshToken = secret.Text{} // an echo replaces nothing
	}
	return a, nil
}

func (in refreshAnswer) answer() Answer {
	c := in.Content
	a := Answer{
		AccessToken: c.AccessToken,
		ExpiresIn:   c.ExpiresInSeconds.Duration(), RefreshExpiresIn: c.RefreshTokenExpiresInSeconds.Duration(),
	}
	for _, t := range c.BrokerAccountTokens {
		account := AnsweredAccount{AccessToken: t.AccessToken, RefreshToken: t.RefreshToken, TokenID: t.TokenID}
		if t.Account != nil {
			account.ID, account.Name = t.Account.AccountID, t.Account.AccountName
		}
		if a.RefreshToken.Empty() {
			a.RefreshToken = t.RefreshToken
		}
		a.Accounts = append(a.Accounts, account)
	}
	if a.RefreshToken.Empty() {
		a.RefreshToken = c.RefreshToken
	}
	if len(a.Accounts) == 0 && c.Account != nil && c.Account.AccountID != "" {
		a.Accounts = []AnsweredAccount{{ID: c.Account.AccountID, Name: c.Account.AccountName, AccessToken: c.AccessToken, RefreshToken: c.RefreshToken}}
	}
	return a
}

// hasTokens reports whether a "succeeded" answer really carries an access token.
func (in refreshAnswer) hasTokens() bool {
	for _, t := range in.Content.BrokerAccountTokens {
		if !t.AccessToken.Empty() {
			return true
		}
	}
	return !in.Content.AccessToken.Empty()
}

// classify reads both the HTTP status and the status in the body, which can
// differ. It returns nil for an answer that carries tokens. Where they
// disagree, the reading that gives up less wins.
func classify(http int, readable bool, in refreshAnswer) *Failure {
	fail := func(class Class, ambiguous bool, reason events.Reason) *Failure {
		return &Failure{Class: class, Ambiguous: ambiguous, Reason: reason, Detail: detail(http, readable, in)}
	}
	switch {
	case http == 401 || http == 403:
		return fail(Denied, false, "")
	case http == 429 || in.Status == "tooManyRequest":
		return fail(RateLimited, false, "")
	case http >= 500 || http == 408:
		// A gateway's 5xx says nothing about what happened behind it.
		return fail(Transient, true, "")
	case !readable:
		return fail(Transient, http < 300, "")
	}
	switch in.Status {
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
	case in.Content == nil:
		return fail(Transient, true, "")
	case in.Content.Status == "failed":
		return fail(Dead, false, events.ReasonRejected)
	case in.Content.Status == "mfaRequired":
		return fail(MustAct, false, events.ReasonMFARequired)
	case in.Content.Status == "succeeded" && in.hasTokens():
		return nil
	}
	return fail(Transient, true, "")
}

var knownStatuses = map[string]bool{
	"ok": true, "serverFailure": true, "permissionDenied": true, "badRequest": true, "notFound": true, "conflict": true,
	"tooManyRequest": true, "locked": true, "unavailableForLegalReasons": true, "succeeded": true, "failed": true, "mfaRequired": true,
}

func detail(http int, readable bool, in refreshAnswer) string {
	known := func(status string) string {
		if knownStatuses[status] {
			return status
		}
		return "other"
	}
	text := fmt.Sprintf("HTTP %d", http)
	if !readable {
		return text + ", not the JSON expected"
	}
	if in.Status != "" {
		text += ", status " + known(in.Status)
	}
	if in.Content != nil && in.Content.Status != "" {
		text += ", content " + known(in.Content.Status)
	}
	return text
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
