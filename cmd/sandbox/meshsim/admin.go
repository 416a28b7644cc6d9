package meshsim

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"
)

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
	in = in.mergeForms()
	spec := in.spec()
	if spec.Institution == nil && in.changes() {
		spec.Institution = new(s.institution(spec))
	}
	if refuse(w, in.change(spec.Institution)) {
		return
	}
	c, err := s.Connect(spec)
	if refuse(w, err) {
		return
	}
	accounts, err := onTheWire(c.Accounts)
	if refuse(w, err) {
		return
	}
	// The payload as it is: some dialects say what an encoder refuses.
	write(w, slices.Concat([]byte(`{"payload":`), []byte(c.Payload.Reveal()), []byte(`,"accounts":`), accounts, []byte("}")))
}

// adminLedger answers the ledger, with ?settle=true once no request is under way.
func (s *Server) adminLedger(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("settle") == "true" && refuse(w, s.WaitIdle(r.Context())) {
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
			refuse(w, fmt.Errorf("id %q is not a number", text))
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
		case refuse(w, err):
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
	return !refuse(w, err)
}

func refuse(w http.ResponseWriter, err error) bool {
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
	writeAnswer(w, answer{status: http.StatusOK, contentType: typeJSON, body: body})
}
