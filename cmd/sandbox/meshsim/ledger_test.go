package meshsim_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
)

// What an answer told before the token was replaced says nothing about the
// replacement.
func TestEarlierAnswersDoNotInformOfAReplacement(t *testing.T) {
	b := newBench(t)
	i := standard()
	i.Rotation = meshsim.RotateOnRequest
	id, first, _ := b.connect(i)
	require.Equal(t, first, b.renew(first).refresh())
	b.script(id, meshsim.Drop())
	_, err := b.try(http.MethodPost, refreshPath, renewal(first, body{"createNewRefreshToken": true}))
	require.Error(t, err)
	b.settle()
	b.renew(first)
	require.Len(t, b.Ledger().ReplacedPresented(), 1)
	require.Empty(t, b.Ledger().Violations())
}

// A client that comes within the grace with a replaced token must learn the
// current one, whatever else would leave it out.
func TestGraceNeverOmitsTheRefreshToken(t *testing.T) {
	for _, mode := range []meshsim.GraceMode{meshsim.GraceNewest, meshsim.GraceRotate} {
		t.Run(string(mode), func(t *testing.T) {
			b := newBench(t)
			i := standard()
			i.Grace, i.GraceMode, i.Rotation, i.OmitKeptRefreshToken = time.Hour, mode, meshsim.RotateOnRequest, true
			id, first, _ := b.connect(i)
			renewed := b.renew(first, body{"createNewRefreshToken": true}).refresh()
			b.script(id, meshsim.OmitRefreshToken())
			require.Equal(t, renewed, b.renew(first).refresh())
			require.Equal(t, renewed, b.renew(first).refresh())
		})
	}
}

// Two refreshes at once with one token: one of them wins, the other is reuse.
func TestConcurrentPresentation(t *testing.T) {
	b := newBench(t)
	id, first, _ := b.connect(standard())
	b.script(id, meshsim.Delay(time.Hour, time.Hour).AfterWork())
	hangUp, result := b.start(first)
	require.Eventually(t, func() bool { return len(b.chain(id).Refresh) == 2 }, time.Minute, time.Millisecond)
	require.Equal(t, "failed", b.renew(first).Content.Status)
	reuse := b.Ledger().Violations()
	require.Len(t, reuse, 1, "the first answer may still come")
	require.True(t, reuse[0].Overlapped)
	hangUp()
	require.Error(t, <-result)
	b.settle()
	reuse = b.Ledger().ReplacedPresented()
	require.True(t, reuse[0].Ambiguous)
}

// Many clients with one token at once: exactly one is served, all others are
// violations.
func TestARaceHasOneWinner(t *testing.T) {
	b := newBench(t)
	i := standard()
	i.TolerateReuse = true
	id, first, _ := b.connect(i)
	const clients = 16
	statuses := make(chan string, clients)
	for range clients {
		go func() {
			r, err := b.send(t.Context(), http.MethodPost, refreshPath, must(json.Marshal(renewal(first))))
			if err != nil || r.Content == nil {
				statuses <- "broken"
				return
			}
			statuses <- r.Content.Status
		}()
	}
	count := map[string]int{}
	for range clients {
		count[<-statuses]++
	}
	require.Equal(t, map[string]int{"succeeded": 1, "failed": clients - 1}, count)
	require.Len(t, b.chain(id).Refresh, 2)
	require.Len(t, b.chain(id).Refresh[0].Presented, clients)
	require.Len(t, b.Ledger().Violations(), clients-1)
}

func TestASnapshotStaysAsItWas(t *testing.T) {
	b := newBench(t)
	_, first, access := b.connect(standard())
	r := b.renew(first)
	l := b.Ledger()
	before := string(must(json.Marshal(l)))
	b.renew(first)
	b.renew(r.refresh())
	require.Equal(t, before, string(must(json.Marshal(l))))
	valid, _ := l.AccessTokenState(access)
	require.True(t, valid)
}
