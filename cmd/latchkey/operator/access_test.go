package operator

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLocalHosts(t *testing.T) {
	for host, local := range map[string]bool{
		"localhost": true, "LOCALHOST:9464": true, "127.0.0.1": true, "127.9.8.7:1": true, "[::1]:9464": true, "[::1]": true,
		"": false, "evil.example": false, "localhost.evil.example": false, "127.0.0.1.evil.example:9464": false, "10.0.0.1": false,
		"evil.localhost": false, "0.0.0.0:9464": false, "localhost:9464:x": false,
	} {
		require.Equal(t, local, localHost(host), host)
	}
}

func TestGuessesAreBoundedByNetwork(t *testing.T) {
	now := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	a := newAttempts(func() time.Time { return now })
	for range guesses {
		require.True(t, a.take("a"))
	}
	require.False(t, a.take("a"))
	require.True(t, a.take("b"), "another address")
	now = now.Add(guessEvery)
	require.True(t, a.take("a"))
	require.False(t, a.take("a"))
	a.giveBack("a")
	require.True(t, a.take("a"), "who is right has lost nothing")

	for from, want := range map[string]string{
		"192.0.2.1:5": "192.0.2.1", "[::ffff:192.0.2.1]:5": "192.0.2.1", "[2001:db8:1:2:3:4:5:6]:5": "2001:db8:1:2::/64", "[::1]:5": "::1", "x": "unknown",
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = from
		require.Equal(t, want, address(r), from)
	}
}
