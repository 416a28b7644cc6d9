package handlers_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/store"
)

// A worker stores a connect and is held up. Meanwhile another handles a disconnect and a
// newer connect, whose grant has the same id and the same revision. When the first worker
// goes on, it finds that the disconnect covers its connect, and leaves the newer one alone.
func TestAConnectThatIsHeldUpLeavesTheNextOneAlone(t *testing.T) {
	r := newRig(t)
	a, b := r.Worker("a"), r.Worker("b")
	slow, fast := r.connector(a), r.connector(b)
	older, newer := r.login("one"), r.login("one")
	first := r.Clock.Now()
	r.Clock.Advance(time.Minute)
	disconnected := r.Clock.Now()
	r.Clock.Advance(time.Minute)
	var stored atomic.Bool
	var meanwhile [2]error
	r.DB.Proxy().LoseAnswers(func(command, collection string) bool {
		if command == "insert" && collection == "grants" && stored.CompareAndSwap(false, true) {
			meanwhile[0] = fast.Disconnect(t.Context(), store.Scope{User: "u"}, disconnected)
			meanwhile[1] = fast.Connect(t.Context(), wrapped("u", newer, 0), r.Clock.Now())
		}
		return false
	})
	require.NoError(t, slow.Connect(t.Context(), wrapped("u", older, 0), first))
	require.True(t, stored.Load())
	require.NoError(t, meanwhile[0])
	require.NoError(t, meanwhile[1])
	live := r.live(b, "u")
	require.Len(t, live, 1)
	tokens, err := b.Tokens(t.Context(), live[0])
	require.NoError(t, err)
	require.True(t, newer.Accounts[0].RefreshToken.Equal(tokens.RefreshToken))
}
