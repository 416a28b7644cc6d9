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

// guard lets in who may see the page, and actions that the page itself asked
// for.
func (p *Page) guard(next http.Handler, loopback bool) http.Handler {
	inside := http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A body of this type can't be sent from another origin unasked, not even
		// by a browser that tells nothing about where a request comes from.
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
			// Else a name of somebody's that resolves to this machine would make this
			// page his.
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

// localHost reports whether a Host header names this machine by a name that
// nobody else can give it. Any port will do: there may be a tunnel.
func localHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
}

// admit answers, and returns false, where the request does not bring the token.
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
		p.Log.Warn("somebody was refused at the operator's page", zap.String("address", from))
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

// who names somebody at the page in the audit log: the name that he gave, which
// nobody has checked, and his address.
func who(r *http.Request) string {
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

// address is the network from which a request comes: guesses from one IPv6
// network count together.
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

// attempts bounds how often somebody may guess: ten times at once, and then
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
		panic(err) // of a size below 1
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

// giveBack returns the attempt of one who was right.
func (a *attempts) giveBack(from string) { a.limiter(from).AllowN(a.now(), -1) }
