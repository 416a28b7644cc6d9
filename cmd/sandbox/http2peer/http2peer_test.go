package http2peer_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/http2peer"
)

// serve has a client of net/http speak HTTP/2 to a peer.
func serve(t *testing.T, p *http2peer.Peer) (*http.Client, string) {
	server := httptest.NewUnstartedServer(nil)
	server.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	server.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){"h2": p.Serve}
	server.StartTLS()
	t.Cleanup(server.Close)
	client := server.Client()
	client.Transport.(*http.Transport).ForceAttemptHTTP2 = true
	return client, server.URL
}

func TestAnswers(t *testing.T) {
	large := strings.Repeat("x", 100_000)
	client, url := serve(t, &http2peer.Peer{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		assert.Equal(t, "/path?q=1", r.URL.String())
		assert.Equal(t, "value", r.Header.Get("X-Header"))
		w.Header().Set("X-Back", "back")
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write(body)
	})})
	for range 3 {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/path?q=1", strings.NewReader(large))
		require.NoError(t, err)
		q.Header.Set("X-Header", "value")
		res, err := client.Do(q)
		require.NoError(t, err)
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		assert.Equal(t, 2, res.ProtoMajor)
		assert.Equal(t, http.StatusTeapot, res.StatusCode)
		assert.Equal(t, "back", res.Header.Get("X-Back"))
		assert.Equal(t, large, string(body))
	}
}

// TestBreaksOff takes a request whole and breaks off, in every way in turn: before
// the answer, and within it. Afterwards a request is answered.
func TestBreaksOff(t *testing.T) {
	for _, within := range []bool{false, true} {
		var broken atomic.Bool
		var served atomic.Int64
		client, url := serve(t, &http2peer.Peer{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			served.Add(1)
			if !broken.Load() {
				return
			}
			if within {
				w.Header().Set("Content-Length", "10")
				_, _ = w.Write([]byte("half "))
			}
			panic(http.ErrAbortHandler)
		})})
		const ways = 12
		for range 2 * ways {
			broken.Store(true)
			before := served.Load()
			// No GetBody: net/http does not repeat a request whose body it can't make again.
			q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, io.NopCloser(strings.NewReader("body")))
			require.NoError(t, err)
			res, err := client.Do(q)
			if err == nil {
				_, err = io.ReadAll(res.Body)
				_ = res.Body.Close()
			}
			require.Error(t, err)
			assert.Equal(t, before+1, served.Load())

			broken.Store(false)
			res, err = client.Get(url)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			assert.Equal(t, 2, res.ProtoMajor)
		}
	}
}

// TestRepeats shows what the peer is for: net/http repeats a request on its own.
func TestRepeats(t *testing.T) {
	var served atomic.Int64
	client, url := serve(t, &http2peer.Peer{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		assert.Equal(t, "body", string(body))
		if served.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}
	})})
	res, err := client.Post(url, "text/plain", strings.NewReader("body"))
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	assert.Greater(t, served.Load(), int64(1))
}

func TestTurnsAway(t *testing.T) {
	p := &http2peer.Peer{Handler: http.NotFoundHandler(), Early: func() bool { return true }}
	client, url := serve(t, p)
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, io.NopCloser(strings.NewReader("body")))
	require.NoError(t, err)
	_, err = client.Do(q) //nolint:bodyclose // there is no response
	require.Error(t, err)
	assert.Positive(t, p.TurnedAway())
}
