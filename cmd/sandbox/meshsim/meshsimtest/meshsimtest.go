// Package meshsimtest gives tests answers of Mesh that they write themselves or draw, in
// place of those that the simulator makes.
package meshsimtest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// Response is an answer of Mesh as it goes over the wire.
type Response struct {
	Status int
	Body   string
	// Declared is the Content-Length, to break the connection off; 0: that of Body.
	Declared int
}

// Content is a response with content in Mesh's envelope.
func Content(content string) Response {
	return Response{Status: http.StatusOK, Body: `{"status":"ok","content":` + content + `}`}
}

// Server answers every call as Mesh, with the response that was set last.
type Server struct {
	URL string
	// During, if set, is called before each answer.
	During func()
	// Asked is the body of the last request.
	Asked string

	mu   sync.Mutex
	next Response
}

// NewServer starts a server that stops when the test ends.
func NewServer(t *testing.T) *Server {
	s := &Server{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked, _ := io.ReadAll(r.Body)
		if s.During != nil {
			s.During()
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.Asked = string(asked)
		if s.next.Declared > len(s.next.Body) {
			w.Header().Set("Content-Length", fmt.Sprint(s.next.Declared))
		}
		w.WriteHeader(s.next.Status)
		_, _ = io.WriteString(w, s.next.Body)
	}))
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// Set has the server answer so from now on.
func (s *Server) Set(next Response) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = next
}
