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
type sessions struct{ users sync.Map } // user id by session id

func (s *sessions) user(r *http.Request) string {
	cookie, err := r.Cookie(sessionCookie)
	if err != nil {
		return ""
	}
	return load(&s.users, cookie.Value)
}

func load(users *sync.Map, session string) string {
	user, _ := users.Load(session)
	known, _ := user.(string)
	return known
}

func (s *sessions) begin(w http.ResponseWriter) (user string) {
	id := rand.Text()
	user = "visitor-" + strings.ToLower(rand.Text()[:6])
	s.users.Store(id, user)
	// Over https it would be Secure too, and named with __Host- in front.
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: id, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
	return user
}

func (s *sessions) end(w http.ResponseWriter, r *http.Request) {
	if cookie, err := r.Cookie(sessionCookie); err == nil {
		s.users.Delete(cookie.Value)
	}
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: -1})
}
