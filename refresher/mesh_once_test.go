package refresher_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/refresher"
)

// breaks are the ways in which a peer can break off, over HTTP/1.1.
var breaks = map[string]func(*exchange){
	"before reading":               func(*exchange) {},
	"before reading, by a reset":   (*exchange).reset,
	"after a byte":                 func(e *exchange) { _, _ = e.in.ReadByte() },
	"after a byte, by a reset":     func(e *exchange) { _, _ = e.in.ReadByte(); e.reset() },
	"after the request line":       func(e *exchange) { _, _ = e.in.ReadString('\n') },
	"after the header":             (*exchange).header,
	"after the header, by a reset": func(e *exchange) { e.header(); e.reset() },
	"within the body":              func(e *exchange) { e.header(); _, _ = e.in.ReadByte() },
	"within the body, by a reset":  func(e *exchange) { e.header(); _, _ = e.in.ReadByte(); e.reset() },
	"after the body":               func(e *exchange) { e.receive() },
	"after the body, by a reset":   func(e *exchange) { e.receive(); e.reset() },
	"after the body, by halves": func(e *exchange) {
		e.receive()
		_ = e.tcp.CloseWrite()
		_, _ = io.Copy(io.Discard, e.tcp)
	},
	"within the status line":     func(e *exchange) { e.receive(); e.say("HTTP/1.1 20") },
	"within the answer's header": func(e *exchange) { e.receive(); e.say("HTTP/1.1 200 OK\r\nContent-Le") },
	"after the answer's header":  func(e *exchange) { e.receive(); e.say("HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n") },
	"within the answer's body":   func(e *exchange) { e.receive(); e.say("HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n{") },
	"there, by a reset":          func(e *exchange) { e.receive(); e.say("HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n{"); e.reset() },
	"within a chunk":             func(e *exchange) { e.receive(); e.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{") },
	"before the last chunk": func(e *exchange) {
		e.receive()
		e.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
	},
	"after 100 Continue":              func(e *exchange) { e.receive(); e.say("HTTP/1.1 100 Continue\r\n\r\n") },
	"after 102 Processing":            func(e *exchange) { e.receive(); e.say("HTTP/1.1 102 Processing\r\n\r\n") },
	"after 103 Early Hints":           func(e *exchange) { e.receive(); e.say("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n") },
	"after 103, by a reset":           func(e *exchange) { e.receive(); e.say("HTTP/1.1 103 Early Hints\r\n\r\n"); e.reset() },
	"after 100 without the body":      func(e *exchange) { e.header(); e.say("HTTP/1.1 100 Continue\r\n\r\n") },
	"after 101 Switching Protocols":   func(e *exchange) { e.receive(); e.say(switching) },
	"after 101, by a reset":           func(e *exchange) { e.receive(); e.say(switching); e.reset() },
	"by another protocol":             func(e *exchange) { e.receive(); e.say("220 mail.example ESMTP\r\n") },
	"by HTTP/2 that nobody asked for": func(e *exchange) { e.receive(); _ = http2.NewFramer(e.conn, e.in).WriteSettings() },
}

const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n"

func (e *exchange) say(s string) { _, _ = io.WriteString(e.conn, s) }

// header reads the header of a request and leaves the body.
func (e *exchange) header() {
	for {
		line, err := e.in.ReadString('\n')
		if err != nil || line == "\r\n" {
			return
		}
	}
}

// streamBreaks are the ways in which a peer can break off over HTTP/2, if it is
// spoken.
func streamBreaks() map[string]func(*exchange) {
	out := map[string]func(*exchange){}
	stages := map[string]func(*exchange){
		"after the header": func(e *exchange) {
			e.frames(func(f http2.Frame) bool { _, ok := f.(*http2.HeadersFrame); return ok })
		},
		"within the body": func(e *exchange) {
			e.frames(func(f http2.Frame) bool { _, ok := f.(*http2.DataFrame); return ok })
		},
		"after the body": func(e *exchange) { e.receive() },
	}
	for stage, come := range stages {
		out["closed "+stage] = come
		for code := http2.ErrCodeNo; code <= http2.ErrCodeHTTP11Required; code++ {
			out[fmt.Sprintf("RST_STREAM %s %s", code, stage)] = func(e *exchange) {
				come(e)
				e.locked(func() { _ = e.h2.WriteRSTStream(e.id, code) })
				_, _ = io.Copy(io.Discard, e.in)
			}
			for _, last := range []uint32{0, 1, 3, 1<<31 - 1} {
				out[fmt.Sprintf("GOAWAY %s last %d %s", code, last, stage)] = func(e *exchange) {
					come(e)
					e.locked(func() { _ = e.h2.WriteGoAway(last, code, nil) })
				}
			}
		}
	}
	return out
}

// manyRepeats ends a test of a client that repeats: it would do so for minutes.
const manyRepeats = 20

// breakingPeer breaks every connection off, in a way for each protocol.
func breakingPeer(t *testing.T, l link, http1, stream func(*exchange)) *peer {
	return newPeer(t, l, func(e *exchange) {
		e.p.mu.Lock()
		enough := e.p.conns > manyRepeats
		e.p.mu.Unlock()
		switch {
		case enough:
			e.receive()
			e.answer()
		case e.h2 != nil:
			stream(e)
		default:
			http1(e)
		}
	})
}

// TestATokenIsPresentedOnce breaks calls off in every way. Whatever the peer
// does it gets each request at most once, and where any of a request's body may
// have come, the outcome is not known.
func TestATokenIsPresentedOnce(t *testing.T) {
	t.Parallel()
	over := streamBreaks()
	for _, l := range []link{plainHTTP, tlsHTTP1, tlsBoth} {
		for name, breakOff := range breaks {
			t.Run(l.name+"/"+name, func(t *testing.T) {
				once(t, breakingPeer(t, l, breakOff, over["closed after the body"]))
			})
		}
	}
	for name, stream := range over {
		t.Run(name, func(t *testing.T) {
			once(t, breakingPeer(t, tlsBoth, breaks["after the body"], stream))
		})
	}
}

func once(t *testing.T, p *peer) {
	m := p.mesh(t)
	f := refused(t, m)
	presented, read := p.count("canary-refresh")
	require.LessOrEqual(t, presented, 1)
	require.Equal(t, refresher.Transient, f.Class)
	if presented > 0 || read > 0 {
		require.True(t, f.Ambiguous)
	}

	require.Error(t, m.Remove(t.Context(), secret.New("canary-access"), "coinbase"))
	presented, _ = p.count("canary-access")
	require.LessOrEqual(t, presented, 1)
	_, err := m.Probe(t.Context())
	require.Error(t, err)
	presented, _ = p.count("")
	require.LessOrEqual(t, presented, 1)
}

// TestAConnectionThatIsKept has a peer offer its connection for another request,
// and break off when that comes, or before.
func TestAConnectionThatIsKept(t *testing.T) {
	for _, l := range []link{plainHTTP, tlsHTTP1, tlsBoth} {
		for name, then := range map[string]func(*exchange){
			"closed at once":                func(*exchange) {},
			"reset at once":                 (*exchange).reset,
			"closed when it is used":        func(e *exchange) { _, _ = e.in.ReadByte() },
			"reset when it is used":         func(e *exchange) { _, _ = e.in.ReadByte(); e.reset() },
			"closed after the next request": func(e *exchange) { e.receive() },
			"reset after the next request":  func(e *exchange) { e.receive(); e.reset() },
		} {
			t.Run(l.name+"/"+name, func(t *testing.T) {
				p := newPeer(t, l, func(e *exchange) {
					if e.receive() {
						e.answer()
						then(e)
					}
				})
				m := p.mesh(t)
				for n := range 20 {
					token := fmt.Sprint("token-", n)
					_, err := m.Refresh(t.Context(), refresher.RefreshRequest{BrokerType: "coinbase", RefreshToken: text(token)})
					require.NoError(t, err, "a call waits for no connection of another")
					presented, _ := p.count(token)
					require.Equal(t, 1, presented)
				}
			})
		}
	}
}

// TestABrokenConnectionCostsItsOwnAnswer has calls under way together, and the
// connection of one of them break.
func TestABrokenConnectionCostsItsOwnAnswer(t *testing.T) {
	const calls = 8
	for _, l := range []link{plainHTTP, tlsHTTP1, tlsBoth} {
		for name, breakOff := range map[string]func(*exchange){
			"closed": func(e *exchange) { _ = e.tcp.Close() },
			"reset":  (*exchange).reset,
		} {
			t.Run(l.name+"/"+name, func(t *testing.T) {
				var together sync.WaitGroup
				together.Add(calls)
				broken := make(chan struct{})
				p := newPeer(t, l, func(e *exchange) {
					var mine sync.WaitGroup
					defer mine.Wait()
					for e.receive() {
						together.Done()
						mine.Go(func(e exchange) func() {
							return func() {
								together.Wait()
								if e.token == "victim" {
									breakOff(&e)
									close(broken)
								}
								<-broken
								e.answer()
							}
						}(*e))
						if e.h2 == nil {
							return
						}
					}
				})
				m := p.mesh(t)
				var done sync.WaitGroup
				var lost atomic.Int32
				for n := range calls {
					token := "victim"
					if n > 0 {
						token = fmt.Sprint("sibling-", n)
					}
					done.Go(func() {
						a, err := m.Refresh(t.Context(), refresher.RefreshRequest{BrokerType: "coinbase", RefreshToken: text(token)})
						if err != nil {
							lost.Add(1)
							return
						}
						if got := a.NewRefreshToken().Reveal(); got != "after-"+token {
							t.Errorf("%s got the answer %s", token, got)
						}
					})
				}
				done.Wait()
				require.Equal(t, int32(1), lost.Load())
			})
		}
	}
}

// TestAServerWithoutHTTP1 has nothing to read, if it says by ALPN what it speaks.
// One that lets us in nevertheless may have read the token.
func TestAServerWithoutHTTP1(t *testing.T) {
	p := newPeer(t, tlsOther, func(e *exchange) { _, _ = io.Copy(io.Discard, e.in) })
	f := refused(t, p.mesh(t))
	require.Equal(t, refresher.Transient, f.Class)
	require.False(t, f.Ambiguous)
	require.ErrorContains(t, f, "no application protocol")
	_, read := p.count("")
	require.Zero(t, read)

	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") }))
	server.EnableHTTP2, server.Config.Protocols = true, &http.Protocols{}
	server.Config.Protocols.SetHTTP2(true)
	server.StartTLS()
	t.Cleanup(server.Close)
	m := newMesh(t, server.URL)
	m.Trust(server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs)
	// Go's server takes the connection and then closes it: whether that is before or
	// after the request was on its way is chance, and decides whether it is ambiguous.
	require.Equal(t, refresher.Transient, refused(t, m).Class)
}

// TestASwitchOfProtocolEnds: the body of such an answer is the bare connection.
func TestASwitchOfProtocolEnds(t *testing.T) {
	p := newPeer(t, tlsBoth, func(e *exchange) {
		e.receive()
		e.say(switching)
		_, _ = io.Copy(io.Discard, e.in) // and says no more
	})
	require.True(t, refused(t, p.mesh(t)).Ambiguous)
}

// TestWhatWasGivenUpDoesNotArriveLater has a peer that takes nothing in until
// the caller has given up: what the system holds of the request by then must
// not be presented afterwards, when another call may have replaced the token.
func TestWhatWasGivenUpDoesNotArriveLater(t *testing.T) {
	for _, l := range []link{plainHTTP, tlsHTTP1} {
		for name, informed := range map[string]string{"": "", "/after 100": "HTTP/1.1 100 Continue\r\n\r\n", "/after 102": "HTTP/1.1 102 Processing\r\n\r\n", "/after 103": "HTTP/1.1 103 Early Hints\r\n\r\n"} {
			t.Run(l.name+name, func(t *testing.T) {
				given, ended := make(chan struct{}), make(chan struct{})
				p := newPeer(t, l, func(e *exchange) {
					if informed != "" {
						e.header()
						e.say(informed)
					}
					<-given
					_, _ = io.Copy(io.Discard, e.in)
					close(ended)
				})
				ctx, giveUp := context.WithCancel(t.Context())
				wrote, heard := make(chan struct{}), make(chan struct{})
				ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
					WroteRequest:   func(httptrace.WroteRequestInfo) { close(wrote) },
					Got1xxResponse: func(int, textproto.MIMEHeader) error { close(heard); return nil },
				})
				go func() {
					<-wrote
					if informed != "" {
						<-heard
					}
					giveUp()
				}()
				// More than the peer's system takes in, less than ours.
				token := strings.Repeat("canary", 1<<17)
				_, err := p.mesh(t).Refresh(ctx, refresher.RefreshRequest{BrokerType: "coinbase", RefreshToken: text(token)})
				require.ErrorIs(t, err, context.Canceled)
				require.True(t, refresher.AsFailure(err).Ambiguous)
				close(given)
				<-ended
				_, read := p.count("")
				require.Less(t, read, len(token))
			})
		}
	}
}
