package meshsim

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/latchkey/latchkey/events/pause"
	"github.com/latchkey/latchkey/events/secret"
)

// Config configures a [Server]. Only Seed is required.
type Config struct {
	// Seed is what all tokens and all random choices derive from. A folder belongs to one.
	Seed secret.Text
	// ClientID and ClientSecret are the credentials that every request must bring; with
	// both empty none are needed.
	ClientID     string
	ClientSecret secret.Text
	Dir          string                                           // of the journal; "": everything is in memory
	Institutions map[string]Institution                           // override [DefaultInstitution] by broker type
	Clock        func() time.Time                                 // time.Now unless set; tokens expire by it
	Sleep        func(ctx context.Context, d time.Duration) error // waits for a delay, or returns the error of ctx
}

// Server is the simulator, an [http.Handler]. It is safe for concurrent use.
type Server struct {
	cfg  Config
	mint mint
	mux  *http.ServeMux
	done chan struct{}

	mu        sync.Mutex
	book      *book
	journal   *journal
	faults    faults
	spoken    map[string][]string        // dialects by broker type, beside the institutions' own
	linkToken func(userID string) string // nil: there is no simulated Link
	settled   chan struct{}              // closed when no request is under way; nil then
	closed    bool
}

func New(cfg Config) (*Server, error) {
	if cfg.Seed.Empty() {
		return nil, errors.New("the simulator needs a seed")
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Sleep == nil {
		cfg.Sleep = pause.For
	}
	s := &Server{cfg: cfg, mint: mint{cfg.Seed}, mux: http.NewServeMux(), done: make(chan struct{}), book: newBook(), spoken: map[string][]string{}}
	chance := sha256.Sum256([]byte(s.mint.derive("chance", "").Reveal()))
	s.faults = faults{
		chance:  rand.New(rand.NewPCG(binary.BigEndian.Uint64(chance[:8]), binary.BigEndian.Uint64(chance[8:16]))),
		scripts: map[string][]Action{},
	}
	for brokerType, i := range cfg.Institutions {
		if _, err := speechOf(i.Dialects...); err != nil {
			return nil, fmt.Errorf("institution %q: %w", brokerType, err)
		}
	}
	var err error
	if s.journal, err = openJournal(cfg.Dir, cfg.Seed, s.book); err != nil {
		return nil, err
	}
	now := cfg.Clock()
	if err := s.record(
		event{At: now, Opened: &opened{Seed: FingerprintOf(cfg.Seed)}},
		event{At: now, Restarted: &restarted{}},
	); err != nil {
		return nil, errors.Join(err, s.journal.close())
	}
	s.route()
	return s, nil
}

// route serves Mesh's API (@meshconnect/node-api 2.0.28), of which the ledger records
// refreshes and removals, and the simulator's own paths, for a test in another process.
func (s *Server) route() {
	for path, handle := range map[string]http.HandlerFunc{
		"POST /api/v1/token/refresh":     s.serveRefresh,
		"DELETE /api/v1/account":         s.serveRemove,
		"POST /api/v1/linktoken":         s.serveLinkToken,
		"GET /api/v1/status":             s.serveStatus,
		"GET /api/v1/integrations":       s.serveIntegrations,
		"POST /api/v1/holdings/get":      s.serveHoldings,
		"POST /api/v1/holdings/value":    s.serveHoldingsValue,
		"GET /api/v1/holdings/portfolio": s.servePortfolio,
		"POST /api/v1/balance/get":       s.serveBalance,
		"GET /api/v1/balance/portfolio":  s.serveFiatPortfolio,

		"POST /sim/connect": s.adminConnect,
		"GET /sim/ledger":   s.adminLedger,
		"GET /sim/faults":   func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Faults()) },
		"POST /sim/faults": command(func(list []Fault) (any, error) {
			ids, err := s.Inject(list...)
			return map[string][]int{"ids": ids}, err
		}),
		"DELETE /sim/faults": s.adminClear,
		"POST /sim/script":   command(func(c accountCommand) (any, error) { return nil, s.Script(c.AccountID, c.Actions...) }),
		"POST /sim/kill":     command(func(c accountCommand) (any, error) { return nil, s.Kill(c.AccountID) }),
		"POST /sim/alter":    command(func(c accountCommand) (any, error) { return nil, s.Alter(c.AccountID, c.Institution) }),
		"GET /sim/dialects":  s.adminDialects,
		"POST /sim/dialects": command(func(c speakCommand) (any, error) { return nil, s.Speak(c.BrokerType, c.Dialects...) }),
	} {
		s.mux.HandleFunc(path, s.withCredentials(handle))
	}
}

// ServeHTTP answers Mesh's API under /api/v1/ and the simulator's own under /sim/.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Close ends hanging requests and closes the journal. Requests after it fail.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	close(s.done)
	return s.journal.close()
}

func (s *Server) Ledger() Ledger {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.book.snapshot(s.cfg.Clock())
}

// AccessTokenState reports whether an access token opens its account now, and if not, why.
func (s *Server) AccessTokenState(token secret.Text) (valid bool, why string) {
	return s.AccessTokenStateAt(token, s.cfg.Clock())
}

// AccessTokenStateAt reports whether an access token was valid at a time of the
// simulator's clock, and if not, why. One that was killed since then was not.
func (s *Server) AccessTokenStateAt(token secret.Text, when time.Time) (valid bool, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.book.access[FingerprintOf(token)]
	if !ok {
		return false, "unknown"
	}
	return s.book.chains[at.chain-1].Access[at.index].state(when)
}

// WaitIdle waits until no request is under way: from then on the ledger knows what became
// of each answer.
func (s *Server) WaitIdle(ctx context.Context) error {
	s.mu.Lock()
	settled := s.settled
	s.mu.Unlock()
	if settled == nil {
		return nil
	}
	select {
	case <-settled:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the simulator to be idle: %w", ctx.Err())
	}
}

// Kill ends the newest chain of an account, as an institution does when its user
// withdraws consent: refreshes fail and access tokens are void.
func (s *Server) Kill(accountID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.book.newest(accountID)
	if err != nil || !c.Alive() {
		return err
	}
	return s.record(event{At: s.cfg.Clock(), Died: &died{Chain: c.ID, Why: DeadByFault}})
}

func (s *Server) Alter(accountID string, i Institution) error {
	if _, err := speechOf(i.Dialects...); err != nil {
		return fmt.Errorf("alter account %q: %w", accountID, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.book.newest(accountID)
	if err != nil {
		return err
	}
	return s.record(event{At: s.cfg.Clock(), Altered: &altered{Chain: c.ID, Institution: i}})
}

// record writes events into journal and book. The caller holds the lock.
func (s *Server) record(events ...event) error {
	if s.closed {
		return errors.New("the simulator is closed")
	}
	if err := s.journal.append(events...); err != nil {
		return err
	}
	for _, e := range events {
		if err := s.book.apply(e); err != nil {
			return err
		}
	}
	switch under := len(s.book.open) > 0; {
	case under && s.settled == nil:
		s.settled = make(chan struct{})
	case !under && s.settled != nil:
		close(s.settled)
		s.settled = nil
	}
	return nil
}

func (s *Server) withCredentials(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, key := r.Header.Get("X-Client-Id"), secret.New(r.Header.Get("X-Client-Secret"))
		if subtle.ConstantTimeCompare([]byte(id), []byte(s.cfg.ClientID)) == 1 && key.Equal(s.cfg.ClientSecret) ||
			s.cfg.ClientID == "" && s.cfg.ClientSecret.Empty() {
			next(w, r)
			return
		}
		writeAnswer(w, problem(http.StatusUnauthorized))
	}
}
