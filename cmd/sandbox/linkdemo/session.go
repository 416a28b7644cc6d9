package linkdemo

import (
	"crypto/rand"
	"net/http"
	"strings"
	"sync"
)

const sessionCookie = "linkdemo"

// sessions identify users. A cookie that no script can read names the session, and only the
// server knows its user. A real backend has a sign-in in its place; this one makes a user of
// every new visitor, and keeps them in memory.
type sessions struct {
	mu    sync.Mutex
	users map[string]string // session id -> user id
}

func (s *sessions) user(r *http.Request) string {
	cookie, err := r.Cookie(sessionCookie)
	if err != nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.users[cookie.Value]
}

func (s *sessions) begin(w http.ResponseWriter) (user string) {
	id := rand.Text()
	user = "visitor-" + strings.ToLower(rand.Text()[:6])
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[id] = user
	// Over https it would be Secure too, and named with __Host- in front.
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: id, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
	return user
}

func (s *sessions) end(w http.ResponseWriter, r *http.Request) {
	if cookie, err := r.Cookie(sessionCookie); err == nil {
		s.mu.Lock()
		delete(s.users, cookie.Value)
		s.mu.Unlock()
	}
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: -1})
}
