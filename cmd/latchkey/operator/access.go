package operator

import (
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unicode"

	lru "github.com/hashicorp/golang-lru/v2"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/latchkey/latchkey/events/secret"
)

// Guard admits visitors who may see the page, and actions that come from the page.
func (p *Page) Guard(next http.Handler, loopback bool) http.Handler {
	inside := http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Another origin can't send a body of this type without a preflight request,
		// not even through a browser that does not name the origin.
		if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); r.Method == http.MethodPost && kind != "application/json" {
			http.Error(w, "the body must be application/json", http.StatusUnsupportedMediaType)
			return
		}
		next.ServeHTTP(w, r)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		headers(w.Header())
		switch {
		case loopback && !localHost(r.Host):
			// Otherwise a foreign host name that resolves to this machine would make
			// this page same-origin with a foreign one (DNS rebinding).
			http.Error(w, "this page is for localhost", http.StatusMisdirectedRequest)
		case !p.Token.Empty() && !p.admit(w, r):
		default:
			inside.ServeHTTP(w, r)
		}
	})
}

func headers(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// localHost reports whether a Host header names this machine by a name that nobody
// else controls. The port may be that of a tunnel.
func localHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
}

// admit reports whether the request brings the token, and answers it if not.
func (p *Page) admit(w http.ResponseWriter, r *http.Request) bool {
	given, ok := credentials(r)
	if !ok {
		challenge(w, "the page asks for admin.token")
		return false
	}
	from := address(r)
	if !p.attempts.take(from) {
		w.Header().Set("Retry-After", "60")
		http.Error(w, "too many attempts; wait a minute", http.StatusTooManyRequests)
		return false
	}
	if !p.Token.Equal(given) {
		p.Log.Warn("a request to the operator's page was refused", zap.String("address", from))
		challenge(w, "this is not admin.token")
		return false
	}
	p.attempts.giveBack(from)
	return true
}

func challenge(w http.ResponseWriter, text string) {
	w.Header().Set("WWW-Authenticate", `Basic realm="Latchkey", charset="UTF-8"`)
	http.Error(w, text, http.StatusUnauthorized)
}

func credentials(r *http.Request) (secret.Text, bool) {
	if _, password, ok := r.BasicAuth(); ok {
		return secret.New(password), true
	}
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	return secret.New(token), ok && strings.EqualFold(scheme, "Bearer")
}

// visitor names a visitor in the audit log, by the user name in the request, which is
// not verified, and the address.
func visitor(r *http.Request) string {
	name, _, ok := r.BasicAuth()
	if !ok || name == "" {
		return address(r)
	}
	name = strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return unicode.ReplacementChar
		}
		return c
	}, name)
	if runes := []rune(name); len(runes) > 64 {
		name = string(runes[:64])
	}
	return name + " at " + address(r)
}

// address returns the address from which a request comes, or its network for IPv6:
// guesses from one network count together.
func address(r *http.Request) string {
	host, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return "unknown"
	}
	ip := host.Addr().Unmap().WithZone("")
	if ip.Is6() && !ip.IsLoopback() {
		if network, err := ip.Prefix(64); err == nil {
			return network.String()
		}
	}
	return ip.String()
}

// attempts bounds the guesses of the token from one address: ten at once, then one
// every six seconds.
type attempts struct {
	now  func() time.Time
	mu   sync.Mutex
	from *lru.Cache[string, *rate.Limiter]
}

const (
	guesses     = 10
	guessEvery  = 6 * time.Second
	maxGuessers = 10_000
)

func newAttempts(now func() time.Time) *attempts {
	from, err := lru.New[string, *rate.Limiter](maxGuessers)
	if err != nil {
		panic(err) // the size is below 1
	}
	return &attempts{now: now, from: from}
}

func (a *attempts) limiter(from string) *rate.Limiter {
	a.mu.Lock()
	defer a.mu.Unlock()
	l, ok := a.from.Get(from)
	if !ok {
		l = rate.NewLimiter(rate.Every(guessEvery), guesses)
		a.from.Add(from, l)
	}
	return l
}

func (a *attempts) take(from string) bool { return a.limiter(from).AllowN(a.now(), 1) }

// giveBack returns the attempt of a visitor with the right token.
func (a *attempts) giveBack(from string) { a.limiter(from).AllowN(a.now(), -1) }
