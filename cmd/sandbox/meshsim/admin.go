package meshsim

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"
)

// The simulator's own paths, for a test in another process. They ask for the same
// credentials as the API.
func (s *Server) routeAdmin() {
	s.mux.HandleFunc("POST /sim/connect", s.guarded(s.adminConnect))
	s.mux.HandleFunc("GET /sim/ledger", s.guarded(s.adminLedger))
	s.mux.HandleFunc("GET /sim/faults", s.guarded(func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Faults()) }))
	s.mux.HandleFunc("POST /sim/faults", s.guarded(s.adminInject))
	s.mux.HandleFunc("DELETE /sim/faults", s.guarded(s.adminClear))
	s.mux.HandleFunc("POST /sim/script", s.guarded(s.adminScript))
	s.mux.HandleFunc("POST /sim/kill", s.guarded(s.adminKill))
	s.mux.HandleFunc("POST /sim/alter", s.guarded(s.adminAlter))
	s.mux.HandleFunc("GET /sim/dialects", s.guarded(func(w http.ResponseWriter, _ *http.Request) { reply(w, spokenDialects{Dialects(), s.Spoken()}) }))
	s.mux.HandleFunc("POST /sim/dialects", s.guarded(s.adminSpeak))
}

type injected struct {
	IDs []int `json:"ids"`
}

// accountCommand is the body of the commands about one account.
type accountCommand struct {
	AccountID   string      `json:"accountId"`
	Actions     []Action    `json:"actions,omitzero"`
	Institution Institution `json:"institution,omitzero"`
}

// speakCommand is the body of [Server.Speak].
type speakCommand struct {
	BrokerType string   `json:"brokerType"` // "": all
	Dialects   []string `json:"dialects"`
}

type spokenDialects struct {
	Dialects []Dialect           `json:"dialects"`
	Spoken   map[string][]string `json:"spoken"`
}

func (s *Server) adminSpeak(w http.ResponseWriter, r *http.Request) {
	var c speakCommand
	if read(w, r, &c) && !refused(w, s.Speak(c.BrokerType, c.Dialects...)) {
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *Server) adminConnect(w http.ResponseWriter, r *http.Request) {
	var command connectCommand
	if !read(w, r, &command) {
		return
	}
	command = command.unwrapped()
	spec := command.spec()
	if spec.Institution == nil && command.changes() {
		s.mu.Lock()
		spec.Institution = new(s.institution(spec))
		s.mu.Unlock()
	}
	if refused(w, command.change(spec.Institution)) {
		return
	}
	c, err := s.Connect(spec)
	if refused(w, err) {
		return
	}
	accounts, err := onTheWire(c.Accounts)
	if refused(w, err) {
		return
	}
	// As it is: some dialects say what an encoder refuses.
	write(w, slices.Concat([]byte(`{"payload":`), []byte(c.Payload.Reveal()), []byte(`,"accounts":`), accounts, []byte("}")))
}

// adminLedger answers the ledger, with ?settle=true once no request is under way.
func (s *Server) adminLedger(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("settle") == "true" {
		if refused(w, s.Settle(r.Context())) {
			return
		}
	}
	reply(w, s.Ledger())
}

func (s *Server) adminInject(w http.ResponseWriter, r *http.Request) {
	var list []Fault
	if !read(w, r, &list) {
		return
	}
	ids, err := s.Inject(list...)
	if refused(w, err) {
		return
	}
	reply(w, injected{ids})
}

// adminClear removes the faults named by ?id=, or everything.
func (s *Server) adminClear(w http.ResponseWriter, r *http.Request) {
	var ids []int
	for _, text := range r.URL.Query()["id"] {
		id, err := strconv.Atoi(text)
		if err != nil {
			refused(w, fmt.Errorf("id %q is not a number", text))
			return
		}
		ids = append(ids, id)
	}
	s.ClearFaults(ids...)
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) adminScript(w http.ResponseWriter, r *http.Request) {
	s.command(w, r, func(c accountCommand) error { return s.Script(c.AccountID, c.Actions...) })
}

func (s *Server) adminKill(w http.ResponseWriter, r *http.Request) {
	s.command(w, r, func(c accountCommand) error { return s.Kill(c.AccountID) })
}

func (s *Server) adminAlter(w http.ResponseWriter, r *http.Request) {
	s.command(w, r, func(c accountCommand) error { return s.Alter(c.AccountID, c.Institution) })
}

func (s *Server) command(w http.ResponseWriter, r *http.Request, do func(accountCommand) error) {
	var c accountCommand
	if read(w, r, &c) && !refused(w, do(c)) {
		w.WriteHeader(http.StatusNoContent)
	}
}

func read(w http.ResponseWriter, r *http.Request, into any) bool {
	err := json.UnmarshalRead(http.MaxBytesReader(w, r.Body, maxRequestBytes), into,
		json.RejectUnknownMembers(true), json.WithUnmarshalers(json.JoinUnmarshalers(durationIn, numbersAsTexts)))
	return !refused(w, err)
}

func refused(w http.ResponseWriter, err error) bool {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
	return err != nil
}

func reply(w http.ResponseWriter, v any) {
	var body bytes.Buffer
	if err := encode(&body, v); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	write(w, body.Bytes())
}

func write(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_, _ = w.Write(body)
}
