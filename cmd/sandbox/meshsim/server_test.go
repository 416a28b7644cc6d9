package meshsim_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
)

func TestSettleGivesUpWithItsContext(t *testing.T) {
	b := newBench(t)
	id, first, _ := b.connect(standard())
	b.script(id, meshsim.Hang())
	hangUp, result := b.start(first)
	require.Eventually(t, func() bool { return len(b.chain(id).Refresh) == 2 }, time.Minute, time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, b.WaitIdle(ctx), context.Canceled)
	hangUp()
	require.Error(t, <-result)
	b.settle()
}

func TestCloseEndsHangingRequests(t *testing.T) {
	b := newBench(t)
	id, first, _ := b.connect(standard())
	b.script(id, meshsim.Hang())
	_, result := b.start(first)
	require.Eventually(t, func() bool { return len(b.chain(id).Refresh) == 2 }, time.Minute, time.Millisecond)
	require.NoError(t, b.Close())
	require.ErrorIs(t, <-result, io.EOF)
	require.Equal(t, http.StatusInternalServerError, b.renew(first).code, "a closed simulator answers nothing")
}

func TestKillAndAlter(t *testing.T) {
	b := newBench(t)
	id, first, access := b.connect(standard())
	require.NoError(t, b.Alter(id, meshsim.Institution{Rotation: meshsim.RotateNever}))
	require.Equal(t, first, b.renew(first).refresh())
	require.NoError(t, b.Kill(id))
	require.NoError(t, b.Kill(id))
	b.requireAccess(access, meshsim.DeadByFault)
	require.Equal(t, "failed", b.renew(first).Content.Status)
	require.Error(t, b.Kill("nobody"))
	require.Error(t, b.Alter("nobody", meshsim.Institution{}))
	require.Error(t, b.Script("nobody", meshsim.Normal()))
}

func TestCredentials(t *testing.T) {
	b := newBench(t)
	_, first, _ := b.connect(standard())
	for _, pair := range [][2]string{{"", ""}, {clientID, ""}, {clientID, "x"}, {"x", clientSecret}} {
		for _, path := range []string{"POST " + refreshPath, "DELETE " + accountPath, "GET /sim/ledger"} {
			method, p, _ := strings.Cut(path, " ")
			q, err := http.NewRequest(method, b.url+p, nil)
			require.NoError(t, err)
			q.Header.Set("X-Client-Id", pair[0])
			q.Header.Set("X-Client-Secret", pair[1])
			resp, err := b.client.Do(q)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
		}
	}
	require.Equal(t, "succeeded", b.renew(first).Content.Status)
}
