package refresher_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/latchkey/latchkey/refresher"
)

// link is how a peer is reached.
type link struct {
	name string
	// offers are the protocols that the peer offers by ALPN; nil: it speaks
	// without TLS.
	offers []string
}

var (
	plainHTTP = link{"plain HTTP/1.1", nil}
	tlsHTTP1  = link{"TLS, HTTP/1.1", []string{"http/1.1"}}
	tlsBoth   = link{"TLS, HTTP/2 and HTTP/1.1", []string{"h2", "http/1.1"}}
	// Servers in Go that offer h2 alone let clients of HTTP/1.1 in, other servers
	// refuse them, as Go does where the name is another.
	tlsOther = link{"TLS, another protocol alone", []string{"h2-alone"}}
)

// peer is the far side of calls, which answers or breaks off by hand. It counts
// the requests that it got in full, by refresh token.
type peer struct {
	url   string
	roots *x509.CertPool

	mu        sync.Mutex
	presented map[string]int
	// read is how many bytes of requests came, those of handshakes not counted.
	read  int
	conns int
}

// exchange is a request that a peer has got in full, or as far as it wants to.
type exchange struct {
	p     *peer
	tcp   *net.TCPConn
	conn  net.Conn // TLS, or the same
	in    *bufio.Reader
	h2    *http2.Framer // nil: HTTP/1.1
	id    uint32        // the stream
	token string
	lock  *sync.Mutex
}

// newPeer has serve handle each connection.
func newPeer(t *testing.T, l link, serve func(*exchange)) *peer {
	t.Helper()
	p := &peer{presented: map[string]int{}}
	certified := httptest.NewUnstartedServer(nil)
	certified.StartTLS()
	config := &tls.Config{Certificates: certified.TLS.Certificates, NextProtos: l.offers}
	p.roots = x509.NewCertPool()
	p.roots.AddCert(certified.Certificate())
	certified.Close()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	scheme := "http"
	if l.offers != nil {
		scheme = "https"
	}
	p.url = scheme + "://" + listener.Addr().String()
	go func() {
		for {
			accepted, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer accepted.Close()
				e := &exchange{p: p, tcp: accepted.(*net.TCPConn), conn: accepted, lock: &sync.Mutex{}}
				if l.offers != nil {
					secured := tls.Server(accepted, config)
					if secured.Handshake() != nil {
						return
					}
					e.conn = secured
				}
				p.mu.Lock()
				p.conns++
				p.mu.Unlock()
				e.in = bufio.NewReader(counting{e.conn, p})
				if secured, ok := e.conn.(*tls.Conn); ok && secured.ConnectionState().NegotiatedProtocol == "h2" {
					e.h2 = http2.NewFramer(e.conn, e.in)
				}
				serve(e)
			}()
		}
	}()
	return p
}

type counting struct {
	net.Conn
	p *peer
}

func (c counting) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.p.read += n
	return n, err
}

func (p *peer) mesh(t *testing.T, change ...func(*refresher.MeshOptions)) *refresher.Mesh {
	m := newMesh(t, p.url, change...)
	m.Trust(p.roots)
	return m
}

// count is how often a refresh token was presented in full, and how many bytes
// of requests came in all.
func (p *peer) count(token string) (presented, read int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.presented[token], p.read
}

// got notes a request that is there in full.
func (e *exchange) got(body []byte) {
	var in struct{ RefreshToken, AuthToken string }
	_ = json.Unmarshal(body, &in) // what is no JSON is no token's
	e.token = in.RefreshToken + in.AuthToken
	e.p.mu.Lock()
	defer e.p.mu.Unlock()
	e.p.presented[e.token]++
}

// receive reads requests until one is there in full, and reports false when the
// connection ended before.
func (e *exchange) receive() bool {
	if e.h2 == nil {
		r, err := http.ReadRequest(e.in)
		if err != nil {
			return false
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return false
		}
		e.got(body)
		return true
	}
	return e.frames(func(f http2.Frame) bool {
		data, ok := f.(*http2.DataFrame)
		return ok && data.StreamEnded()
	})
}

// frames reads frames until one is the last wanted.
func (e *exchange) frames(last func(http2.Frame) bool) bool {
	if e.id == 0 {
		if _, err := io.CopyN(io.Discard, e.in, int64(len(http2.ClientPreface))); err != nil {
			return false
		}
		_ = e.h2.WriteSettings() // a read after it fails if this does
	}
	bodies := map[uint32]*bytes.Buffer{}
	for {
		f, err := e.h2.ReadFrame()
		if err != nil {
			return false
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				e.locked(func() { _ = e.h2.WriteSettingsAck() })
			}
		case *http2.HeadersFrame:
			e.id = f.StreamID
		case *http2.DataFrame:
			if bodies[f.StreamID] == nil {
				bodies[f.StreamID] = &bytes.Buffer{}
			}
			bodies[f.StreamID].Write(f.Data())
			e.id = f.StreamID
			if f.StreamEnded() {
				e.got(bodies[f.StreamID].Bytes())
			}
		}
		if last(f) {
			return true
		}
	}
}

func (e *exchange) locked(write func()) {
	e.lock.Lock()
	defer e.lock.Unlock()
	write()
}

// answer gives tokens that are named after the one presented.
func (e *exchange) answer() {
	content := strings.ReplaceAll(body("ok", tokensContent), "new-refresh", "after-"+e.token)
	if e.h2 == nil {
		_, _ = fmt.Fprintf(e.conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(content), content)
		return
	}
	e.locked(func() {
		_ = e.h2.WriteHeaders(http2.HeadersFrameParam{StreamID: e.id, BlockFragment: head(200, len(content)), EndHeaders: true})
		_ = e.h2.WriteData(e.id, true, []byte(content))
	})
}

func head(status, length int) []byte {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	_ = enc.WriteField(hpack.HeaderField{Name: ":status", Value: strconv.Itoa(status)}) // a bytes.Buffer takes all
	_ = enc.WriteField(hpack.HeaderField{Name: "content-length", Value: strconv.Itoa(length)})
	return block.Bytes()
}

// reset has the connection end by a TCP reset once it is closed.
func (e *exchange) reset() {
	_ = e.tcp.SetLinger(0)
	_ = e.tcp.Close()
}
