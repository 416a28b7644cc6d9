package refresher

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/events/tracing"
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
	// Now is the clock against which a Retry-After date is read.
	Now func() time.Time
}

// maxAnswer bounds what is read of an answer; logos make some of them large.
const maxAnswer = 8 << 20

// NewMesh returns a client with a connection pool of its own.
func NewMesh(o MeshOptions) *Mesh {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 256
	transport.MaxIdleConns = 256
	// A request that meets a connection just closed by the far side has an
	// unknown outcome. Load balancers close idle connections after 60 s or
	// more; ours go well before.
	transport.IdleConnTimeout = 15 * time.Second
	return &Mesh{
		url: strings.TrimRight(o.URL, "/"), clientID: o.ClientID, clientSecret: o.ClientSecret,
		timeout: o.Timeout, now: o.Now,
		http: &http.Client{
			Transport: transport,
			// A redirect would post the tokens elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Close drops idle connections.
func (m *Mesh) Close() { m.http.CloseIdleConnections() }

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
}

type refreshBody struct {
	Type                  string `json:"type"`
	RefreshToken          string `json:"refreshToken"`
	CreateNewRefreshToken bool   `json:"createNewRefreshToken,omitempty"`
	AccessToken           string `json:"accessToken,omitempty"`
	TradeToken            string `json:"tradeToken,omitempty"`
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

// Refresh makes one call and classifies what comes back. It never repeats the
// call. Every error is a *Failure.
func (m *Mesh) Refresh(ctx context.Context, r RefreshRequest) (answer Answer, err error) {
	ctx, span := m.startSpan(ctx, http.MethodPost, "/api/v1/token/refresh")
	defer func() { endRefresh(span, err) }()
	status, header, body, sent, err := m.call(ctx, http.MethodPost, "/api/v1/token/refresh", refreshBody{
		Type: r.BrokerType, RefreshToken: r.RefreshToken.Reveal(), CreateNewRefreshToken: r.CreateNewRefreshToken,
		AccessToken: r.AccessToken.Reveal(), TradeToken: r.TradeToken.Reveal(),
	})
	if err != nil {
		return Answer{}, &Failure{Class: Transient, Ambiguous: sent, Detail: "no answer", Err: err}
	}
	var in refreshAnswer
	err = json.Unmarshal(body, &in)
	clear(body)
	// A field of an unexpected type is passed over: the tokens beside it count.
	var mistyped *json.UnmarshalTypeError
	readable := err == nil || errors.As(err, &mistyped)
	if !readable {
		in = refreshAnswer{}
	}
	if f := classify(status, readable, in); f != nil {
		if f.Class == RateLimited || f.Class == Transient {
			f.RetryAfter = retryAfter(header, m.now())
		}
		return Answer{}, f
	}
	a := in.answer()
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

// Remove revokes an account's access at Mesh: DELETE /api/v1/account.
func (m *Mesh) Remove(ctx context.Context, accessToken secret.Text, brokerType string) (err error) {
	ctx, span := m.startSpan(ctx, http.MethodDelete, "/api/v1/account")
	defer func() { tracing.End(span, err) }()
	status, _, _, _, err := m.call(ctx, http.MethodDelete, "/api/v1/account", struct {
		AuthToken string `json:"authToken"`
		Type      string `json:"type"`
	}{accessToken.Reveal(), brokerType})
	if err != nil {
		return fmt.Errorf("removing an account at Mesh: %w", err)
	}
	if status >= 300 && status != http.StatusNotFound {
		return fmt.Errorf("removing an account at Mesh: HTTP %d", status)
	}
	return nil
}

// call sends one request. sent reports whether any of it may have reached the
// far side.
func (m *Mesh) call(ctx context.Context, method, path string, body any) (status int, header http.Header, answer []byte, sent bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	encoded, err := json.Marshal(body)
	if err != nil {
		return 0, nil, nil, false, errors.New("encoding the request failed")
	}
	var wrote atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaderField: func(string, []string) { wrote.Store(true) },
	})
	req, err := http.NewRequestWithContext(ctx, method, m.url+path, bytes.NewReader(encoded))
	if err != nil {
		return 0, nil, nil, false, errors.New("the URL of Mesh is malformed")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("X-Client-Id", m.clientID)
	req.Header.Set("X-Client-Secret", m.clientSecret.Reveal())
	res, err := m.http.Do(req)
	if err != nil && wrote.Load() {
		return 0, nil, nil, true, untainted(err)
	}
	if err != nil {
		return 0, nil, nil, false, err
	}
	defer res.Body.Close()
	tracing.Set(ctx, attribute.Int("http.response.status_code", res.StatusCode))
	answer, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return 0, nil, nil, true, fmt.Errorf("reading the answer: %w", untainted(err))
	}
	return res.StatusCode, res.Header, answer, true, nil
}

// untainted returns of a transport's error what holds nothing that the far side
// wrote: net/http quotes an answer that it does not understand, and that could
// be an echo of the request with its tokens.
func untainted(err error) error {
	for _, known := range []error{context.DeadlineExceeded, context.Canceled, io.ErrUnexpectedEOF, io.EOF} {
		if errors.Is(err, known) {
			return known
		}
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op
	}
	return errors.New("the connection broke or the answer is not proper HTTP")
}
