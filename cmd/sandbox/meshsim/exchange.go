package meshsim

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

type answer struct {
	outcome     string
	status      int
	contentType string
	body        []byte
	action      *Action // set when it comes from a fault and not from the institution

	occasion Occasion    // which dialects apply; "": none
	header   http.Header // beside Content-Type
	missing  int         // bytes that Content-Length promises beyond the body
	unending bool        // the body comes in chunks of which the last one never comes
}

func answerOf(outcome string, status int, e envelope) answer {
	body, err := onTheWire(e)
	if err != nil {
		return answer{outcome: "unencodable", status: http.StatusInternalServerError, body: []byte("{}")}
	}
	return answer{outcome: outcome, status: status, contentType: typeJSON, body: body}
}

// problem is a bare HTTP failure with the body of a gateway.
func problem(status int) answer {
	body, _ := json.Marshal(problemBody(status), json.Deterministic(true))
	return answer{outcome: "status " + strconv.Itoa(status), status: status, contentType: "application/problem+json", body: body}
}

func problemBody(status int) map[string]any {
	return map[string]any{"type": "about:blank", "title": http.StatusText(status), "status": status}
}

const maxRequestBytes = 1 << 20

func readJSON(w http.ResponseWriter, r *http.Request, into any) error {
	return decode(http.MaxBytesReader(w, r.Body, maxRequestBytes), into)
}

// exchange handles a request: what was planned for it happens before or after work,
// which runs under the lock.
func (s *Server) exchange(w http.ResponseWriter, r *http.Request, q Request, work func(id int, a Action) (answer, error)) {
	id, p, err := s.begin(q, r)
	if err != nil {
		s.serverError(w, id, err)
		return
	}
	s.pause(r.Context(), id, p.before)
	a, err := s.withLock(func() (answer, error) { return s.answer(id, q, p.action, work) })
	if err == nil {
		s.pause(r.Context(), id, p.after)
		if p.action.After && p.action.speaks() {
			a, err = s.withLock(func() (answer, error) { return s.faultAnswer(id, q, p.action) })
		}
	}
	if err != nil {
		s.serverError(w, id, err)
		return
	}
	s.deliver(w, r, id, a, p.action)
}

// answer makes the answer to a request, in the dialects that are spoken. The caller
// holds the lock.
func (s *Server) answer(id int, q Request, act Action, work func(id int, a Action) (answer, error)) (answer, error) {
	if act.instead() {
		return s.faultAnswer(id, q, act)
	}
	spoken := s.speechTo(q, act)
	if q.Operation == OpRefresh && len(spoken.about(InsteadOfRefresh)) > 0 {
		return spoken.say(answer{occasion: InsteadOfRefresh, status: http.StatusOK}, ""), nil
	}
	a, err := work(id, act)
	if err != nil {
		return answer{}, err
	}
	return spoken.say(a, q.presented.Reveal()), nil
}

// begin enters a request into the book and takes the plan for it.
func (s *Server) begin(q Request, r *http.Request) (id int, p plan, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q.ID, q.At, q.Remote = len(s.book.requests)+1, s.cfg.Clock(), r.RemoteAddr
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		q.Local = local.String()
	}
	c := s.book.chainOf(q.Token)
	if c != nil {
		q.Chain = c.ID
	}
	if err := s.record(event{At: q.At, Requested: &q}); err != nil {
		return 0, plan{}, err
	}
	return q.ID, s.faults.next(q.Operation, q.BrokerType, c), nil
}

func (s *Server) withLock(f func() (answer, error)) (answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f()
}

// pause waits, and aborts the request when the client leaves meanwhile.
func (s *Server) pause(ctx context.Context, id int, d time.Duration) {
	if d > 0 && s.cfg.Sleep(ctx, d) != nil {
		s.abort(id, "delayed", 0, "the client did not wait")
	}
}

// instead reports whether an action takes the place of the institution's work.
func (a Action) instead() bool {
	if a.After {
		return false
	}
	switch a.Kind {
	case KindNormal, KindCut, KindOmitRefreshToken, KindSpeak:
		return false
	}
	return true
}

// speaks reports whether an action has an answer of its own.
func (a Action) speaks() bool {
	switch a.Kind {
	case KindStatus, KindEnvelope, KindFailed, KindMFARequired, KindGarbage, KindHuge:
		return true
	}
	return false
}

// faultAnswer makes the answer of an action. The caller holds the lock.
func (s *Server) faultAnswer(id int, q Request, a Action) (answer, error) {
	out, err := s.bareFaultAnswer(id, q, a)
	out.action = &a
	out.outcome = strings.TrimSuffix("fault "+string(a.Kind)+": "+out.outcome, ": ")
	return out, err
}

func (s *Server) bareFaultAnswer(id int, q Request, a Action) (answer, error) {
	switch a.Kind {
	case KindStatus:
		return problem(a.Status), nil
	case KindEnvelope:
		e := envelope{Status: a.Envelope, Message: text(a.Message), DisplayMessage: text(a.Message), ErrorType: text(a.ErrorType)}
		return answerOf(a.Envelope, a.Status, e), nil
	case KindFailed:
		if c := s.chain(q); a.Kill && c != nil && c.Alive() {
			if _, err := s.die(id, c, DeadByFault, s.cfg.Clock()); err != nil {
				return answer{}, err
			}
		}
		return failed(a.Message), nil
	case KindMFARequired:
		if c := s.chain(q); c != nil {
			return s.challenge(id, c, s.cfg.Clock())
		}
		return failed("the refresh token is unknown"), nil
	case KindGarbage:
		return answer{status: http.StatusOK, contentType: "text/html", body: []byte("<html><body>Down for maintenance</body></html>")}, nil
	case KindHuge:
		return answer{status: http.StatusOK, contentType: typeJSON}, nil
	}
	return answer{}, nil
}

func (s *Server) chain(q Request) *Chain { return s.book.chainOf(q.Token) }

func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// deliver sends an answer, or breaks it as planned, and enters that into the book.
func (s *Server) deliver(w http.ResponseWriter, r *http.Request, id int, a answer, act Action) {
	switch act.Kind {
	case KindReset:
		s.finish(id, a.outcome, 0, "the connection was reset")
		reset(w)
	case KindDrop:
		s.abort(id, a.outcome, 0, "the connection was closed with no answer")
	case KindHang:
		select {
		case <-r.Context().Done():
		case <-s.done:
		}
		s.abort(id, a.outcome, 0, "the answer never came")
	}
	if r.Context().Err() != nil {
		s.abort(id, a.outcome, 0, "the client was gone")
	}
	lost := ""
	if a.action != nil && act.After {
		lost = "another answer took its place"
	}
	s.header(w, a, act)
	if act.Kind == KindHuge {
		s.huge(w, id, a, act.Size, lost)
		return
	}
	if !a.unending {
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)+a.missing))
	}
	w.WriteHeader(a.status)
	whole := len(a.body)
	if whole == 0 {
		s.finish(id, a.outcome, a.status, lost)
		return
	}
	if act.Kind == KindCut {
		_, _ = w.Write(a.body[:whole/2])
		_ = http.NewResponseController(w).Flush()
		s.abort(id, a.outcome, a.status, "half of the answer was sent")
	}
	// The last byte waits until the book says "delivered", so that no client has the
	// whole answer before the ledger knows.
	if err := send(w, a.body[:whole-1]); err != nil {
		s.abort(id, a.outcome, a.status, "the client was gone")
	}
	s.finish(id, a.outcome, a.status, lost)
	if err := send(w, a.body[whole-1:]); err != nil {
		s.finish(id, a.outcome, a.status, "the client was gone")
	}
	if a.missing > 0 || a.unending {
		panic(http.ErrAbortHandler) // closes the connection
	}
}

func (s *Server) header(w http.ResponseWriter, a answer, act Action) {
	maps.Copy(w.Header(), a.header)
	w.Header().Set("Content-Type", a.contentType)
	if a.action == nil || act.RetryAfter == 0 {
		return
	}
	if act.RetryAfterDate {
		w.Header().Set("Retry-After", s.cfg.Clock().Add(act.RetryAfter).UTC().Format(http.TimeFormat))
		return
	}
	w.Header().Set("Retry-After", strconv.Itoa(int(act.RetryAfter/time.Second)))
}

// huge streams an envelope with a message of at least size bytes.
func (s *Server) huge(w http.ResponseWriter, id int, a answer, size int64, lost string) {
	s.finish(id, a.outcome, a.status, lost)
	_ = send(w, []byte(`{"status":"ok","message":"`))
	for chunk := bytes.Repeat([]byte("x"), 64<<10); size > 0; size -= int64(len(chunk)) {
		if send(w, chunk) != nil {
			return
		}
	}
	_ = send(w, []byte(`","content":{"status":"failed"}}`))
}

func send(w http.ResponseWriter, b []byte) error {
	if _, err := w.Write(b); err != nil {
		return err
	}
	return http.NewResponseController(w).Flush()
}

func (s *Server) finish(id int, outcome string, status int, undelivered string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Fails in a closed simulator, whose next start finds the request without an answer.
	_ = s.record(event{At: s.cfg.Clock(), Answered: &answered{Request: id, Outcome: outcome, HTTPStatus: status, Undelivered: undelivered}})
}

// abort finishes a request and closes its connection with whatever was sent.
func (s *Server) abort(id int, outcome string, status int, undelivered string) {
	s.finish(id, outcome, status, undelivered)
	panic(http.ErrAbortHandler)
}

func (s *Server) serverError(w http.ResponseWriter, id int, err error) {
	if id != 0 {
		s.finish(id, fmt.Sprintf("simulator: %v", err), http.StatusInternalServerError, "the simulator failed")
	}
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

// reset closes the connection so that the client sees a TCP reset.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	inner := conn
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		inner = t.NetConn()
	}
	if t, ok := inner.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = inner.Close()
	panic(http.ErrAbortHandler)
}
