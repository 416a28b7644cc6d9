package linkdemo

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
	"github.com/latchkey/latchkey/events/secret"
)

const (
	maxPayload = 1<<20 - 4<<10  // what NATS takes at most, less some room for the envelope
	maxAge     = 24 * time.Hour // how long a page may retry to hand over a connection
)

// Codes of refusals of the backend's own.
const (
	codeNoSession   = "no_session"
	codeUnavailable = "unavailable"
)

// backend is a company's backend, between its page and Latchkey.
type backend struct {
	latchkey latchkey
	link     *link
	script   []byte
	sessions sessions
	times    sync.Map // when a connect first came, by the hash of user and payload
}

func newBackend(l latchkey, link *link, script []byte) *backend {
	return &backend{latchkey: l, link: link, script: script}
}

func (b *backend) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", b.page)
	mux.HandleFunc("GET /page.css", file("web/page/page.css"))
	mux.HandleFunc("GET /page.js", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "page.js", time.Time{}, bytes.NewReader(b.script))
	})
	mux.HandleFunc("POST /api/link-token", b.forUser(b.linkToken))
	mux.HandleFunc("POST /api/connected", b.forUser(b.connected))
	mux.HandleFunc("POST /api/accounts", b.forUser(b.accounts))
	mux.HandleFunc("POST /api/tokens", b.forUser(b.tokens))
	mux.HandleFunc("GET /api/events", b.forUser(b.events))
	mux.HandleFunc("POST /api/leave", b.leave)
	// The SDK writes a style element of its own, hence 'unsafe-inline' for styles;
	// nothing can be loaded by them.
	policy := "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; connect-src 'self'; frame-src " + b.link.origin +
		"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	return withHeaders(policy, http.NewCrossOriginProtection().Handler(mux))
}

// withHeaders forbids to cache answers, and the page to load, show or reach anything but what it
// needs.
func withHeaders(policy string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", policy)
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

func (b *backend) page(w http.ResponseWriter, r *http.Request) {
	user := b.sessions.user(r)
	if user == "" {
		user = b.sessions.begin(w)
	}
	render(w, samplePage, struct{ User string }{user})
}

func (b *backend) leave(w http.ResponseWriter, r *http.Request) {
	b.sessions.end(w, r)
	answer(w, http.StatusOK, struct{}{})
}

// forUser calls next with the user of the session, the only source of a user id.
func (b *backend) forUser(next func(w http.ResponseWriter, r *http.Request, user string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user := b.sessions.user(r)
		if user == "" {
			refuse(w, http.StatusUnauthorized, codeNoSession)
			return
		}
		next(w, r, user)
	}
}

// linkToken prepares Link for the user. At the real Mesh that is a request to POST
// /api/v1/linktoken with the company's credentials.
func (b *backend) linkToken(w http.ResponseWriter, _ *http.Request, user string) {
	answer(w, http.StatusOK, map[string]string{"linkToken": b.link.token(user)})
}

// connected passes what Link handed to the page on to Latchkey, and to nobody else.
func (b *backend) connected(w http.ResponseWriter, r *http.Request, user string) {
	var in struct {
		Payload json.RawMessage `json:"payload"`
		// AgeMilliseconds is how long the page has had the payload: the clock of a browser
		// may be wrong by any amount.
		AgeMilliseconds int64 `json:"ageMilliseconds"`
	}
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxPayload)).Decode(&in)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		refuse(w, http.StatusRequestEntityTooLarge, events.CodeBadRequest)
		return
	case err != nil, len(in.Payload) == 0, in.AgeMilliseconds < 0, in.AgeMilliseconds > maxAge.Milliseconds():
		refuse(w, http.StatusBadRequest, events.CodeBadRequest)
		return
	}
	at := time.Now().Add(-time.Duration(in.AgeMilliseconds) * time.Millisecond).UTC()
	// The page's next try is the same connect, not a newer one. The payload holds tokens: only
	// its hash stays.
	first, _ := b.times.LoadOrStore(sha256.Sum256(append([]byte(user+"\x00"), in.Payload...)), at)
	var invalid *events.InvalidError
	switch err = b.latchkey.PublishConnected(r.Context(), client.Connected{UserID: user, Payload: secret.New(string(in.Payload)), ConnectedAt: first.(time.Time)}); {
	case errors.As(err, &invalid):
		refuse(w, http.StatusBadRequest, events.CodeBadRequest)
	case err != nil:
		refuse(w, http.StatusServiceUnavailable, codeUnavailable)
	default:
		answer(w, http.StatusAccepted, struct{}{})
	}
}

// tokens gives the page what createLink takes.
func (b *backend) tokens(w http.ResponseWriter, r *http.Request, user string) {
	reply, err := b.latchkey.Tokens(r.Context(), events.TokenRequest{UserID: user})
	if err != nil {
		refuseTokens(w, err)
		return
	}
	body, err := reply.Encode()
	if err != nil {
		refuse(w, http.StatusInternalServerError, events.CodeInternal)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}

// accountView is an account as the page shows it: without its token.
type accountView struct {
	AccountID   string     `json:"accountId"`
	AccountName string     `json:"accountName"`
	BrokerName  string     `json:"brokerName"`
	ExpiresAt   *time.Time `json:"expiresAt,omitempty"`
}

// accounts answers what is connected, without a refresh.
func (b *backend) accounts(w http.ResponseWriter, r *http.Request, user string) {
	reply, err := b.latchkey.Tokens(r.Context(), events.TokenRequest{UserID: user, MinTTLSeconds: new(int64)})
	var none *client.RefusedError
	if errors.As(err, &none) && (none.Code == events.CodeUnknownUser || len(none.Unavailable) > 0) {
		reply, err = events.TokenReply{Unavailable: none.Unavailable}, nil
	}
	if err != nil {
		refuseTokens(w, err)
		return
	}
	out := struct {
		Accounts    []accountView               `json:"accounts"`
		Unavailable []events.UnavailableAccount `json:"unavailable"`
	}{[]accountView{}, append([]events.UnavailableAccount{}, reply.Unavailable...)}
	for i, t := range reply.AccessTokens {
		out.Accounts = append(out.Accounts, accountView{t.AccountID, t.AccountName, t.BrokerName, reply.Expiries[i].ExpiresAt})
	}
	answer(w, http.StatusOK, out)
}

// events sends Latchkey's events about the user as server-sent events.
func (b *backend) events(w http.ResponseWriter, r *http.Request, user string) {
	received := make(chan events.LifecycleEvent, 64)
	stop, err := b.latchkey.follow(user, func(e events.LifecycleEvent) {
		select {
		case received <- e:
		case <-r.Context().Done():
		}
	})
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, codeUnavailable)
		return
	}
	defer stop()
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	if out.Flush() != nil {
		return
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case e := <-received:
			data, err := json.Marshal(map[string]any{
				"kind": e.Kind, "time": e.Time, "brokerType": e.Data.BrokerType, "brokerName": e.Data.BrokerName, "reason": e.Data.Reason,
			})
			if err != nil {
				return
			}
			if _, err := fmt.Fprintf(w, "data: %s\n\n", data); err != nil || out.Flush() != nil {
				return
			}
		}
	}
}

// refuseTokens answers with the code and the number that Latchkey gave.
func refuseTokens(w http.ResponseWriter, err error) {
	code := events.CodeBusy // no worker is there, or none answered in time
	var refused *client.RefusedError
	var invalid *events.InvalidError
	switch {
	case errors.As(err, &refused):
		code = refused.Code
	case errors.As(err, &invalid):
		code = events.CodeInternal
	}
	status, err := strconv.Atoi(events.CodeNumber[code])
	if err != nil {
		status = http.StatusInternalServerError
	}
	refuse(w, status, code)
}

func refuse(w http.ResponseWriter, status int, code string) {
	answer(w, status, map[string]string{"code": code})
}

// answer writes JSON; a client that has gone away gets nothing.
func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
