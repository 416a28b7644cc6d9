package refresher

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/latchkey/latchkey/events/tracing"
)

// A refresh token may be single use: nothing below this file may repeat a request. net/http does
// over HTTP/2, when a peer resets a stream or goes away, and over HTTP/1.1, when a kept
// connection turns out to be closed. Here each call has a connection to itself, over
// HTTP/1.1, and a body that can be read once.

// maxAnswer bounds what is read of an answer; logos make some of them large.
const maxAnswer = 8 << 20

// newTransport returns a transport that uses each connection for one request.
func newTransport() *http.Transport {
	var http1 http.Protocols
	http1.SetHTTP1(true)
	dialer := net.Dialer{Timeout: 30 * time.Second, KeepAlive: -1} // no connection outlasts its call, which has a timeout
	return &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: dialer.DialContext,
		Protocols:   &http1,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS12,
			// A server of HTTP/2 alone then refuses the handshake, before it has read anything.
			NextProtos: []string{"http/1.1"},
			// A handshake for each call: resumed ones are cheap for both sides.
			ClientSessionCache: tls.NewLRUClientSessionCache(0),
		},
		TLSHandshakeTimeout: 10 * time.Second,
		DisableKeepAlives:   true,
		// What can't be unpacked is kept as it came, which net/http would not do.
		DisableCompression: true,
	}
}

var errTooLate = errors.New("it is too late to send the request")

// onceBody is the body of a request: it is read once, and not after its time. The
// transport reads it once it is connected, so a slow name resolution or handshake, or a
// process that was stopped, counts.
type onceBody struct {
	rest bytes.Reader
	// late reports whether the request may not be sent any more.
	late func() bool
	// began: the transport has taken some of the body, which may reach the peer.
	began, refused atomic.Bool
}

func (b *onceBody) Read(p []byte) (int, error) {
	if !b.began.Load() {
		if b.refused.Load() || b.late() {
			b.refused.Store(true)
			return 0, errTooLate
		}
		b.began.Store(true)
	}
	return b.rest.Read(p)
}

type reply struct {
	status int
	header http.Header
	body   []byte
	// cut is why the body is not whole; nil: it is.
	cut error
}

// errTooLarge: an answer is larger than what is read of one.
var errTooLarge = errors.New("the answer is larger than any that Mesh gives")

// call is exchange, with an error for an answer that is not whole.
func (m *Mesh) call(ctx context.Context, method, path string, content any, notAfter time.Time) (reply, error) {
	r, _, err := m.exchange(ctx, method, path, content, notAfter)
	if err == nil && r.cut != nil {
		return reply{}, r.cut
	}
	return r, err
}

// exchange sends one request (content nil: without a body), unless it is after notAfter by the
// wall clock (zero: no limit). sent: some of the body may have reached the peer.
func (m *Mesh) exchange(ctx context.Context, method, path string, content any, notAfter time.Time) (r reply, sent bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, m.options.Timeout)
	defer cancel()
	var encoded []byte
	if content != nil {
		if encoded, err = json.Marshal(content); err != nil {
			return r, false, errors.New("encoding the request failed")
		}
	}
	// The monotonic clock stands still while a machine is suspended.
	late := func() bool { return !notAfter.IsZero() && m.options.Now().Round(0).After(notAfter) }
	if late() {
		return r, false, errTooLate
	}
	body := &onceBody{late: late}
	body.rest.Reset(encoded)
	var wrote atomic.Bool
	var conn net.Conn
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// Until there is an answer (1xx is none), closing the connection takes back
		// what the system has not delivered. Else it would go on trying for minutes after
		// we gave up, and present the token once another call has replaced it.
		GotConn:          func(c httptrace.GotConnInfo) { conn = c.Conn; linger(conn, 0) },
		WroteHeaderField: func(string, []string) { wrote.Store(true) },
	})
	req, err := http.NewRequestWithContext(ctx, method, m.options.URL+path, body)
	if err != nil {
		return r, false, errors.New("the URL of Mesh is malformed")
	}
	if req.ContentLength = int64(len(encoded)); content == nil {
		req.Body = http.NoBody
	} else {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("X-Client-Id", m.options.ClientID)
	req.Header.Set("X-Client-Secret", m.options.ClientSecret.Reveal())
	// No http.Client: a redirect would post the tokens elsewhere, and one whose
	// Location is no URL comes as an error without the body.
	res, err := m.transport.RoundTrip(req)
	if err == nil {
		defer res.Body.Close()
	}
	switch {
	case body.refused.Load():
		return r, false, errTooLate
	case err != nil && wrote.Load():
		return r, body.began.Load(), withoutPeerText(err)
	case err != nil:
		return r, false, err
	}
	tracing.Set(ctx, attribute.Int("http.response.status_code", res.StatusCode))
	if res.StatusCode == http.StatusSwitchingProtocols {
		// The body is the bare connection, which no deadline ends.
		return r, true, errors.New("the server switches to a protocol that nobody asked for")
	}
	linger(conn, -1)
	r = reply{status: res.StatusCode, header: res.Header}
	if r.body, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer+1)); err != nil {
		r.cut = fmt.Errorf("reading the answer: %w", withoutPeerText(err))
	} else if len(r.body) > maxAnswer {
		r.cut = errTooLarge
	}
	return r, true, nil
}

// linger sets for how many seconds closing a connection tries to deliver what
// was written; -1 is what the system does of itself.
func linger(conn net.Conn, seconds int) {
	for {
		switch c := conn.(type) {
		case *net.TCPConn:
			_ = c.SetLinger(seconds) // fails when it is closed already
			return
		case interface{ NetConn() net.Conn }: // TLS
			conn = c.NetConn()
		default:
			return
		}
	}
}

// withoutPeerText returns what of a transport's error the peer did not write: net/http quotes
// an answer that it does not understand, which could echo the request with its tokens.
func withoutPeerText(err error) error {
	for _, known := range []error{context.DeadlineExceeded, context.Canceled, io.ErrUnexpectedEOF, io.EOF} {
		if errors.Is(err, known) {
			return known
		}
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op
	}
	return errors.New("the connection broke or the answer is not proper HTTP")
}
