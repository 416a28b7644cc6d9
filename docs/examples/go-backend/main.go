// Command go-backend is a company's backend: it announces what users connect
// and disconnect, hears of tokens that are dead, and hands the current ones to
// the page.
//
//	NATS_URL        nats://127.0.0.1:4222
//	NATS_CREDS      file with the credentials of the backend, if it needs any
//	LATCHKEY_PREFIX nats.prefix of the installation, if it has one
//	LISTEN          address to listen on (127.0.0.1:8080)
package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
	"github.com/latchkey/latchkey/events/secret"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	options := []nats.Option{
		nats.Name("example backend"), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(), // through every outage and refusal
		nats.CustomInboxPrefix("_INBOX_example_backend"), // replies hold tokens: an inbox of its own
	}
	if creds := os.Getenv("NATS_CREDS"); creds != "" {
		options = append(options, nats.UserCredentials(creds))
	}
	nc, err := nats.Connect(cmp.Or(os.Getenv("NATS_URL"), nats.DefaultURL), options...)
	if err != nil {
		return fmt.Errorf("connecting to NATS: %w", err)
	}
	defer nc.Close()
	latchkey, err := client.New(nc, client.Prefix(os.Getenv("LATCHKEY_PREFIX")), client.OnError(func(err error) { log.Print(err) }))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", cmp.Or(os.Getenv("LISTEN"), "127.0.0.1:8080"))
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	server := &http.Server{Handler: backend{latchkey, &times{at: map[[sha256.Size]byte]time.Time{}}}.routes(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }() // ends with Close
	defer server.Close()
	log.Printf("listening on http://%s", listener.Addr())
	return latchkey.Subscribe(ctx, client.Subscription{Durable: "example-backend", Kinds: []string{events.TokenExpired}}, expired)
}

// expired is told of every grant that only a new connect revives. Yours: send a
// mail, set a flag that the page shows. Events come at least once.
func expired(_ context.Context, e events.LifecycleEvent) error {
	log.Printf("event %s: user %s has to connect %s again: %s", e.ID, e.Data.UserID, e.Data.BrokerType, e.Data.Reason)
	return nil
}

type backend struct {
	latchkey *client.Client
	times    *times
}

func (b backend) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /connected", forUser(b.connected))
	mux.HandleFunc("POST /disconnected", forUser(b.disconnected))
	mux.HandleFunc("GET /access-tokens", forUser(b.accessTokens))
	mux.HandleFunc("POST /access-tokens", forUser(b.refusedTokens))
	return mux
}

// forUser finds out whose request it is. Yours: the user of the session; never
// take it from what the page says.
func forUser(handle func(w http.ResponseWriter, r *http.Request, user string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user := r.Header.Get("X-Example-User")
		if user == "" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		handle(w, r, user)
	}
}

const (
	maxPayload = 1 << 20        // bytes
	maxAge     = 24 * time.Hour // how long a page may try to hand over a connection
)

// connected gets what onIntegrationConnected gave to the page, unchanged, and for how
// many milliseconds the page has had it: a browser's clock may be wrong. The page sends it
// again until the answer is 204:
//
//	{"payload": {…}, "ageMilliseconds": 12}
func (b backend) connected(w http.ResponseWriter, r *http.Request, user string) {
	now := time.Now()
	var in struct {
		Payload         json.RawMessage
		AgeMilliseconds int64
	}
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxPayload)).Decode(&in)
	if err != nil || in.AgeMilliseconds < 0 || in.AgeMilliseconds > maxAge.Milliseconds() {
		http.Error(w, "not understood", http.StatusBadRequest)
		return
	}
	at := b.times.first(user, in.Payload, now.Add(-time.Duration(in.AgeMilliseconds)*time.Millisecond))
	done(w, b.latchkey.PublishConnected(r.Context(), client.Connected{UserID: user, Payload: secret.New(string(in.Payload)), ConnectedAt: at}))
}

// times keeps for each connect when its tokens were obtained, so that the page's next try
// is the same connect and no newer one. Yours: where several processes serve a page, a
// table that they share, of hashes and times.
type times struct {
	mu sync.Mutex
	at map[[sha256.Size]byte]time.Time
}

// first returns the time with which a user's payload first came, which is at for a new one.
func (t *times) first(user string, payload []byte, at time.Time) time.Time {
	key := sha256.Sum256(append([]byte(user+"\x00"), payload...)) // it holds tokens: only the hash stays
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.at, func(_ [sha256.Size]byte, then time.Time) bool { return time.Since(then) > maxAge })
	if then, found := t.at[key]; found {
		return then
	}
	t.at[key] = at
	return at
}

func (b backend) disconnected(w http.ResponseWriter, r *http.Request, user string) {
	done(w, b.latchkey.PublishDisconnected(r.Context(), events.Disconnected{UserID: user, Everything: true, DisconnectedAt: time.Now()}))
}

func done(w http.ResponseWriter, err error) {
	var invalid *events.InvalidError
	switch {
	case errors.As(err, &invalid):
		http.Error(w, invalid.Error(), http.StatusBadRequest)
	case err != nil:
		log.Print(err)
		http.Error(w, "not stored; send it again", http.StatusServiceUnavailable)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// accessTokens answers with what createLink({ accessTokens }) takes, and with
// "expiries": of which version each token is and when it ends.
func (b backend) accessTokens(w http.ResponseWriter, r *http.Request, user string) {
	b.tokens(w, r, events.TokenRequest{UserID: user})
}

// refusedTokens answers likewise, when a call with some of these tokens was answered
// 401: {"refused": [{"grantId", "version"}]}, as "expiries" named them.
func (b backend) refusedTokens(w http.ResponseWriter, r *http.Request, user string) {
	var in struct{ Refused []events.RefusedToken }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxPayload)).Decode(&in); err != nil {
		http.Error(w, "not understood", http.StatusBadRequest)
		return
	}
	b.tokens(w, r, events.TokenRequest{UserID: user, Refused: in.Refused})
}

func (b backend) tokens(w http.ResponseWriter, r *http.Request, in events.TokenRequest) {
	ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
	defer cancel()
	reply, err := b.latchkey.Tokens(ctx, in)
	var refused *client.RefusedError
	var invalid *events.InvalidError
	switch {
	case errors.As(err, &invalid): // what the page sent
		http.Error(w, "not understood", http.StatusBadRequest)
		return
	case errors.As(err, &refused) && refused.Reconnect():
		http.Error(w, refused.Code, http.StatusConflict) // show "connect again"
		return
	case err != nil:
		log.Print(err)
		http.Error(w, "no tokens now", http.StatusServiceUnavailable)
		return
	}
	body, err := reply.Encode() // with the tokens in the clear
	var out struct {
		AccessTokens json.RawMessage `json:"accessTokens"`
		Expiries     json.RawMessage `json:"expiries"`
	}
	if err == nil {
		err = json.Unmarshal(body, &out)
	}
	if err != nil {
		http.Error(w, "no tokens now", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(out) // the page is gone otherwise
}
