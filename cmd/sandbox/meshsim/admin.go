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
	s.mux.HandleFunc("POST /sim/script", s.guarded(command(func(c accountCommand) error { return s.Script(c.AccountID, c.Actions...) })))
	s.mux.HandleFunc("POST /sim/kill", s.guarded(command(func(c accountCommand) error { return s.Kill(c.AccountID) })))
	s.mux.HandleFunc("POST /sim/alter", s.guarded(command(func(c accountCommand) error { return s.Alter(c.AccountID, c.Institution) })))
	s.mux.HandleFunc("GET /sim/dialects", s.guarded(func(w http.ResponseWriter, _ *http.Request) { reply(w, spokenDialects{Dialects(), s.Spoken()}) }))
	s.mux.HandleFunc("POST /sim/dialects", s.guarded(command(func(c speakCommand) error { return s.Speak(c.BrokerType, c.Dialects...) })))
}

type injected struct {
	IDs []int `json:"ids"`
}

type accountCommand struct {
	AccountID   string      `json:"accountId"`
	Actions     []Action    `json:"actions,omitzero"`
	Institution Institution `json:"institution,omitzero"`
}

type speakCommand struct {
	BrokerType string   `json:"brokerType"` // "": all
	Dialects   []string `json:"dialects"`
}

type spokenDialects struct {
	Dialects []Dialect           `json:"dialects"`
	Spoken   map[string][]string `json:"spoken"`
}

func (s *Server) adminConnect(w http.ResponseWriter, r *http.Request) {
	var in connectCommand
	if !read(w, r, &in) {
		return
	}
	in = in.unwrapped()
	spec := in.spec()
	if spec.Institution == nil && in.changes() {
		spec.Institution = new(s.institution(spec))
	}
	if refused(w, in.change(spec.Institution)) {
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
	// The payload as it is: some dialects say what an encoder refuses.
	write(w, slices.Concat([]byte(`{"payload":`), []byte(c.Payload.Reveal()), []byte(`,"accounts":`), accounts, []byte("}")))
}

// adminLedger answers the ledger, with ?settle=true once no request is under way.
func (s *Server) adminLedger(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("settle") == "true" && refused(w, s.Settle(r.Context())) {
		return
	}
	reply(w, s.Ledger())
}

func (s *Server) adminInject(w http.ResponseWriter, r *http.Request) {
	var list []Fault
	if !read(w, r, &list) {
		return
	}
	if ids, err := s.Inject(list...); !refused(w, err) {
		reply(w, injected{ids})
	}
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

// command carries out the body of a request, and has nothing to answer.
func command[T any](do func(T) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var c T
		if read(w, r, &c) && !refused(w, do(c)) {
			w.WriteHeader(http.StatusNoContent)
		}
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
	tell(w, answer{status: http.StatusOK, contentType: typeJSON, body: body})
}
