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
	for path, handle := range map[string]http.HandlerFunc{
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
		s.mux.HandleFunc(path, s.guarded(handle))
	}
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

func (s *Server) adminDialects(w http.ResponseWriter, _ *http.Request) {
	reply(w, struct {
		Dialects []Dialect           `json:"dialects"`
		Spoken   map[string][]string `json:"spoken"`
	}{Dialects(), s.Spoken()})
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

// command carries out the body of a request.
func command[T any](do func(T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var c T
		if !read(w, r, &c) {
			return
		}
		switch out, err := do(c); {
		case refused(w, err):
		case out == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			reply(w, out)
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
