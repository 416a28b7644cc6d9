package refresher

import (
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing/iotest"
	"time"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store"
)

// Uncalled is for tests of what a refresh that made no call does to the limits.
const Uncalled = notSent

// Said is what an answer without new tokens says: words of the envelope, the
// content and the error type.
func Said(http int, readable bool, status, content, errorType, errorHash string) *Failure {
	return statuses{http: http, readable: readable, envelope: status, content: content, errorType: errorType, errorHash: errorHash}.failure()
}

// AnsweredWithin is Answered, and also returns for how many accounts there is no room.
func (s Settler) AnsweredWithin(g *store.Grant, tokens store.TokenSet, a Answer, epoch int64, sent time.Time) (store.TokenSet, int, error) {
	tokens, report, err := s.applyAnswer(g, tokens, a, false, epoch, sent)
	return tokens, report.leftOut, err
}

// MaxSending is how many outboxes are delivered in the background at once.
const MaxSending = maxSending

// Settings is how often and how much is reconciled; tests change it.
func (r *Reconciler) Settings() *config.Reconcile { return &r.config }

// SetTracer has a dispatcher trace what it sends from now on.
func (d *Dispatcher) SetTracer(t tracing.Tracer) { d.options.Tracer = t }

// Pause is the time until the next pass.
func (r *Reconciler) Pause() time.Duration { return r.untilNextPass() }

// Trust has a client take the certificates of a test's server.
func (m *Mesh) Trust(roots *x509.CertPool) {
	m.transport.(*http.Transport).TLSClientConfig.RootCAs = roots
}

// Leftover returns the tokens of an answer that are not in a set.
func Leftover(a Answer, set store.TokenSet) (refresh, other []secret.Text) { return leftover(a, set) }

// Answer has a client get one answer to whatever it asks, without a network.
func (m *Mesh) Answer(status int, body string, cut bool) {
	m.transport = fixed{status, body, cut}
}

type fixed struct {
	status int
	body   string
	cut    bool
}

func (f fixed) RoundTrip(r *http.Request) (*http.Response, error) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, err
	}
	var body io.Reader = strings.NewReader(f.body)
	if f.cut {
		body = io.MultiReader(body, iotest.ErrReader(io.ErrUnexpectedEOF))
	}
	return &http.Response{StatusCode: f.status, Header: http.Header{}, Body: io.NopCloser(body), Request: r}, nil
}

// Paused reports until when everything is paused because Mesh refuses our
// credentials; the zero time when it is not.
func (l *Limits) Paused() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now().Before(l.paused) {
		return l.paused
	}
	return time.Time{}
}

// Waiting returns how many refreshes wait.
func (q *Queue) Waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting
}

// Waiting returns how many refreshes wait for their turn.
func (r *Refresher) Waiting() int { return r.queue.Waiting() }

// RecodePending decodes what a recovery entry seals, and encodes it again.
func RecodePending(plain []byte) (a Answer, encoded []byte, err error) {
	var p pending
	if err := json.Unmarshal(plain, &p); err != nil {
		return Answer{}, nil, err
	}
	encoded, err = encodeSecrets(p)
	return p.Answer, encoded, err
}

// The times of a Membership.
const BeatEvery, ShareHolds, ShareFree = heartbeatInterval, shareHolds, shareFree
