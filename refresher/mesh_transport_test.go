package refresher_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/refresher"
)

// rawServer serves each connection by hand and returns its URL.
func rawServer(t *testing.T, serve func(*net.TCPConn)) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn.(*net.TCPConn))
			}()
		}
	}()
	return "http://" + listener.Addr().String()
}

// receive reads one request and returns its bytes.
func receive(conn io.Reader) []byte {
	var seen bytes.Buffer
	r, err := http.ReadRequest(bufio.NewReader(io.TeeReader(conn, &seen)))
	if err == nil {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	return seen.Bytes()
}

func TestNothingSentIsNotAmbiguous(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	free := listener.Addr().String()
	require.NoError(t, listener.Close())
	for name, url := range map[string]string{"refused": "http://" + free, "no such host": "http://mesh.invalid", "malformed": "http://%zz"} {
		f := refused(t, newMesh(t, url))
		require.Equal(t, refresher.Transient, f.Class, name)
		require.False(t, f.Ambiguous, name)
	}

	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	t.Cleanup(server.Close)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = newMesh(t, server.URL).Refresh(ctx, request)
	f := refresher.AsFailure(err)
	require.Equal(t, refresher.Transient, f.Class)
	require.False(t, f.Ambiguous)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, calls.Load())
}

func TestGivingUpAfterSendingIsAmbiguous(t *testing.T) {
	arrived, leave := make(chan struct{}, 1), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-leave
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(leave) })

	t.Run("the caller", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-arrived; cancel() }()
		_, err := newMesh(t, server.URL).Refresh(ctx, request)
		require.ErrorIs(t, err, context.Canceled)
		require.True(t, refresher.AsFailure(err).Ambiguous)
	})
	t.Run("the timeout", func(t *testing.T) {
		_, err := newMesh(t, server.URL, func(o *refresher.MeshOptions) { o.Timeout = 2 * time.Second }).Refresh(t.Context(), request)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.True(t, refresher.AsFailure(err).Ambiguous)
	})
}

func TestRedirectIsNotFollowed(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Cleanup(other.Close)
	for _, status := range []int{301, 302, 303, 307, 308} {
		f := refused(t, meshAnswering(t, status, "", "Location", other.URL))
		require.Equal(t, refresher.Transient, f.Class)
		require.Equal(t, fmt.Sprintf("HTTP %d, not the JSON expected", status), f.Detail)
	}
	require.Zero(t, elsewhere.Load(), "tokens were posted to where Mesh pointed")
}

// Where a redirect points to makes no difference to the tokens that it carries.
func TestARedirectLosesNoBody(t *testing.T) {
	for _, status := range []int{300, 301, 302, 303, 305, 307, 308, 399} {
		for _, location := range []string{"", "/", "http://%zz", "://", "http://[::1", "http://a b/", "mailto:x"} {
			a, err := meshAnswering(t, status, body("ok", tokensContent), "Location", location).Refresh(t.Context(), request)
			require.NoError(t, err, "%d %q", status, location)
			require.Equal(t, "new-refresh", a.NewRefreshToken().Reveal(), "%d %q", status, location)
		}
	}
}

// TestNoSecretInAnyError has a hostile or confused server echo the request in
// every place that net/http quotes in its errors.
func TestNoSecretInAnyError(t *testing.T) {
	for name, answer := range map[string]func(echo string) string{
		"first line":     func(echo string) string { return echo },
		"version":        func(echo string) string { return "HTTP/" + echo + " 200 OK\r\n\r\n" },
		"status code":    func(echo string) string { return "HTTP/1.1 " + echo + " OK\r\n\r\n" },
		"reason phrase":  func(echo string) string { return "HTTP/1.1 500 " + echo + "\r\n\r\n" },
		"header line":    func(echo string) string { return "HTTP/1.1 200 OK\r\n" + echo + "\r\n\r\n" },
		"header name":    func(echo string) string { return "HTTP/1.1 200 OK\r\n" + echo + ": x\r\n\r\n" },
		"content length": func(echo string) string { return "HTTP/1.1 200 OK\r\nContent-Length: " + echo + "\r\n\r\n" },
		"encoding":       func(echo string) string { return "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + echo + "\r\n\r\n" },
		"location":       func(echo string) string { return "HTTP/1.1 302 Found\r\nLocation: http://%zz" + echo + "\r\n\r\n" },
		"retry after":    func(echo string) string { return "HTTP/1.1 429 No\r\nRetry-After: " + echo + "\r\n\r\n" },
		"chunk size": func(echo string) string {
			return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + echo + "\r\n"
		},
		"trailer": func(echo string) string {
			return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\n" + echo + "\r\n\r\n"
		},
		"body":     func(echo string) string { return "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + echo },
		"gzip":     func(echo string) string { return "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + echo },
		"envelope": func(echo string) string { return "HTTP/1.1 200 OK\r\n\r\n" + body(echo, "null") },
		"content": func(echo string) string {
			return "HTTP/1.1 200 OK\r\n\r\n" + body("ok", fmt.Sprintf(`{"status":%q}`, echo))
		},
		"error message": func(echo string) string {
			return "HTTP/1.1 400 Bad\r\n\r\n" + fmt.Sprintf(`{"status":"badRequest","message":%q}`, echo)
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t, rawServer(t, func(conn *net.TCPConn) {
				sent := string(receive(conn))
				echo := "canary"
				for _, word := range []string{"canary-refresh", "canary-access", "canary-trade", "canary-client-secret"} {
					if strings.Contains(sent, word) {
						echo += " " + word
					}
				}
				_, _ = io.WriteString(conn, answer(echo))
			}))
			_, err := m.Refresh(t.Context(), request)
			clean(t, err)
			clean(t, m.Remove(t.Context(), secret.New("canary-access"), "coinbase"))
		})
	}
}

// clean looks for a secret in an error and in all that it wraps.
func clean(t *testing.T, err error) {
	t.Helper()
	for ; err != nil; err = errors.Unwrap(err) {
		require.NotContains(t, fmt.Sprintf("%v %+v %#v", err, err, err), "canary")
		if f, ok := err.(*refresher.Failure); ok { //nolint:errorlint // each link by itself
			require.NotContains(t, f.Detail, "canary")
		}
	}
}
