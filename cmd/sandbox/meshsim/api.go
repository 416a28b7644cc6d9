package meshsim

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
)

// maxUserID is how long Mesh lets a user id be, in characters.
const maxUserID = 300

// catalogue is what integrations lists in addition to the configured institutions and
// those that somebody connected.
var catalogue = map[string]string{
	"coinbase": "Coinbase", "binanceOAuth": "Binance", "kraken": "Kraken", "gemini": "Gemini", "robinhood": "Robinhood",
	"weBull": "Webull", "vanguard": "Vanguard", "tdAmeritrade": "TD Ameritrade", "sandbox": "Sandbox",
}

// LinkTokens makes POST /api/v1/linktoken answer what link returns for a user: the
// address of a simulated Link, in base64.
func (s *Server) LinkTokens(link func(userID string) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.linkToken = link
}

func (s *Server) serveLinkToken(w http.ResponseWriter, r *http.Request) {
	var q struct {
		UserID        string `json:"userId"`
		IntegrationID string `json:"integrationId"`
	}
	switch err := readJSON(w, r, &q); {
	case err != nil:
		writeAnswer(w, badRequest("the body is not the JSON object that is expected"))
		return
	case q.UserID == "" || utf8.RuneCountInString(q.UserID) > maxUserID:
		writeAnswer(w, badRequest("userId is required, with 300 characters at most"))
		return
	}
	s.mu.Lock()
	known := q.IntegrationID == "" || slices.ContainsFunc(s.integrations(), func(i integration) bool { return i.ID == strings.ToLower(q.IntegrationID) })
	link := s.linkToken
	s.mu.Unlock()
	if !known {
		writeAnswer(w, badRequest("integrationId is unknown"))
		return
	}
	token := base64.StdEncoding.EncodeToString([]byte("http://" + r.Host + "/sim/link"))
	if link != nil {
		token = link(q.UserID)
	}
	writeAnswer(w, ok(map[string]string{"linkToken": token}))
}

// serveStatus answers the health of institutions: one is down while something in front
// of it answers refreshes. A fault that answers 401 to every request stands for refused
// credentials, and is answered here too.
func (s *Server) serveStatus(w http.ResponseWriter, _ *http.Request) { writeAnswer(w, s.status()) }

func (s *Server) status() answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults.active {
		if f.Action.Kind == KindStatus && f.Action.Status == http.StatusUnauthorized && f.BrokerType == "" && f.AccountID == "" && f.Operation == "" {
			return problem(http.StatusUnauthorized)
		}
	}
	list := []map[string]any{}
	for _, i := range s.integrations() {
		down := s.speech(i.Type, s.institution(ConnectSpec{BrokerType: i.Type})).about(InsteadOfRefresh)
		says := "Operational"
		if len(down) > 0 {
			says = down[len(down)-1].Says
		}
		list = append(list, map[string]any{"type": i.Type, "name": i.Name, "isUp": len(down) == 0, "description": says})
	}
	return ok(list)
}

type integration struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	Type       string   `json:"type"`
	Categories []string `json:"categories"`
}

func (s *Server) serveIntegrations(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	list := s.integrations()
	s.mu.Unlock()
	writeAnswer(w, ok(map[string]any{"items": list}))
}

// integrations lists the institutions by their types. The caller holds the lock.
func (s *Server) integrations() (list []integration) {
	names := maps.Clone(catalogue)
	for brokerType := range s.cfg.Institutions {
		names[brokerType] = cmp.Or(names[brokerType], brokerType)
	}
	for _, c := range s.book.chains {
		names[c.BrokerType] = cmp.Or(names[c.BrokerType], c.BrokerName)
	}
	for _, brokerType := range slices.Sorted(maps.Keys(names)) {
		list = append(list, integration{ID: integrationID(brokerType), Name: names[brokerType], Type: brokerType, Categories: []string{"exchange"}})
	}
	return list
}

// integrationID is a UUID of version 8 (RFC 9562) that is the same for the same type.
func integrationID(brokerType string) string {
	return uuid.NewHash(sha256.New(), uuid.Nil, []byte("integration/"+brokerType), 8).String()
}

func ok(content any) answer {
	body, err := onTheWire(map[string]any{"status": StatusOK, "content": content})
	if err != nil {
		return problem(http.StatusInternalServerError)
	}
	return answer{status: http.StatusOK, contentType: typeJSON, body: body}
}

const typeJSON = "application/json; charset=utf-8"

// writeAnswer sends an answer that no fault and no dialect changes.
func writeAnswer(w http.ResponseWriter, a answer) {
	w.Header().Set("Content-Type", a.contentType)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}
