package linkdemo

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"
	"net/url"
	"sync"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events/secret"
)

var linkPage = template.Must(template.ParseFS(web, "web/link/index.html"))

type broker struct {
	Type, Name, Story string
	spec              meshsim.ConnectSpec
}

func brokers(user string) []broker {
	account := func(broker, name string) meshsim.Account {
		return meshsim.Account{ID: broker + "-" + user, Name: name}
	}
	return []broker{
		{"coinbase", "Coinbase", "Two accounts that share a refresh token", meshsim.ConnectSpec{
			LogoBytes: meshsim.TypicalLogoBytes, Accounts: []meshsim.Account{account("cb1", "Savings"), account("cb2", "Trading")},
		}},
		{"binance", "Binance", "Delayed authentication: a refresh token only", meshsim.ConnectSpec{
			Delayed: true, Accounts: []meshsim.Account{account("bn", "Spot")},
		}},
		{"oldBank", "Old Bank", "An access token that nothing can renew", meshsim.ConnectSpec{
			NoRefreshToken: true, Accounts: []meshsim.Account{account("ob", "Current account")},
		}},
	}
}

// link is the server behind Link's iframe, which Mesh runs.
type link struct {
	mesh               *meshsim.Server
	institutions       map[string]meshsim.Institution
	pageOrigin, origin string
	sessions           sync.Map // user id by Link session
}

func newLink(mesh *meshsim.Server, institutions map[string]meshsim.Institution, pageOrigin, origin string) *link {
	return &link{mesh: mesh, institutions: institutions, pageOrigin: pageOrigin, origin: origin}
}

// token returns a link token for a user: as at Mesh, the address of a Link session in
// base64.
func (l *link) token(user string) string {
	id := rand.Text()
	l.sessions.Store(id, user)
	return base64.StdEncoding.EncodeToString([]byte(l.origin + "/?session=" + url.QueryEscape(id)))
}

func (l *link) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", l.forUser(l.page))
	mux.HandleFunc("GET /link.css", file("web/link/link.css"))
	mux.HandleFunc("GET /link.js", file("web/link/link.js"))
	mux.HandleFunc("POST /connect", l.forUser(l.connect))
	mux.HandleFunc("POST /transfer", l.forUser(l.transfer))
	policy := "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors " + l.pageOrigin
	return withHeaders(policy, http.NewCrossOriginProtection().Handler(mux))
}

func (l *link) forUser(next func(w http.ResponseWriter, r *http.Request, user string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user := load(&l.sessions, r.URL.Query().Get("session"))
		if user == "" {
			problem(w, http.StatusUnauthorized, "This Link session is not known.")
			return
		}
		next(w, r, user)
	}
}

func (l *link) page(w http.ResponseWriter, _ *http.Request, user string) {
	render(w, linkPage, struct {
		PageOrigin string
		Brokers    []broker
	}{l.pageOrigin, brokers(user)})
}

// connect is the user's sign-in at an institution.
func (l *link) connect(w http.ResponseWriter, r *http.Request, user string) {
	var in struct {
		BrokerType string `json:"brokerType"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&in); err != nil {
		problem(w, http.StatusBadRequest, "Not understood.")
		return
	}
	for _, b := range brokers(user) {
		if b.Type != in.BrokerType {
			continue
		}
		spec := b.spec
		spec.BrokerType, spec.BrokerName = b.Type, b.Name
		if i, ok := l.institutions[b.Type]; ok {
			spec.Institution = &i
		}
		c, err := l.mesh.Connect(spec)
		if err != nil {
			problem(w, http.StatusInternalServerError, "The institution does not answer.")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(c.Payload.Reveal()))
		return
	}
	problem(w, http.StatusNotFound, "There is no such institution.")
}

// transfer succeeds when the institution takes the token.
func (l *link) transfer(w http.ResponseWriter, r *http.Request, user string) {
	var in struct {
		AccessToken secret.Text `json:"accessToken"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&in); err != nil {
		problem(w, http.StatusBadRequest, "Not understood.")
		return
	}
	if valid, _ := l.mesh.AccessTokenState(in.AccessToken); !valid {
		problem(w, http.StatusConflict, "The institution no longer takes this account’s token.")
		return
	}
	answer(w, http.StatusOK, map[string]any{
		"status": "success", "txId": rand.Text(), "fromAddress": "simulated-from", "toAddress": "simulated-to",
		"symbol": "USDC", "amount": 10, "networkId": "simulated", "userId": user,
	})
}

func problem(w http.ResponseWriter, status int, message string) {
	answer(w, status, map[string]string{"message": message})
}
