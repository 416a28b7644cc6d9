package tokens

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

func TestPlacesAreBoundedByWhatIsWaitedForAndByCaller(t *testing.T) {
	var p places
	most := func(what, caller string, size int) (n int) {
		for p.take(what, caller, size) {
			n++
		}
		return n
	}
	require.Equal(t, 5, most("a", "greedy", 10))
	require.Equal(t, 3, most("a", "second", 10), "as many as are left")
	require.Equal(t, 1, most("a", "third", 10))
	require.Equal(t, 5, most("b", "greedy", 10), "another thing has places of its own")
	require.Equal(t, 1, most("c", "one", 1))
	require.Equal(t, 1, most("d", "one", 2))
	require.Equal(t, 1, most("d", "two", 2))
	for range 5 {
		p.free("a", "greedy")
	}
	require.Equal(t, 3, most("a", "greedy", 10))
	for range 3 {
		p.free("a", "greedy")
		p.free("a", "second")
	}
	p.free("a", "third")
	require.NotContains(t, p.rooms, "a", "nothing stays of what nobody waits for")
}

func TestCallersTakeTurns(t *testing.T) {
	turns := &turns{free: 1}
	require.NoError(t, turns.enter(t.Context(), "first"))
	order := make(chan string, 100)
	waiting := 0
	wait := func(ctx context.Context, caller, name string) {
		t.Helper()
		go func() {
			if turns.enter(ctx, caller) == nil {
				order <- name
			} else {
				order <- name + " gave up"
			}
		}()
		waiting++
		require.Eventually(t, func() bool {
			turns.mu.Lock()
			defer turns.mu.Unlock()
			n := 0
			for _, line := range turns.waiting {
				n += len(line)
			}
			return n == waiting
		}, patience, time.Millisecond)
	}
	for i := range 4 {
		wait(t.Context(), "flood", fmt.Sprint("flood ", i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	wait(ctx, "impatient", "impatient")
	wait(t.Context(), "quiet", "quiet 0")
	wait(t.Context(), "quiet", "quiet 1")
	cancel()
	require.Equal(t, "impatient gave up", enginestest.Receive(t, order))
	for _, next := range []string{"flood 0", "quiet 0", "flood 1", "quiet 1", "flood 2", "flood 3"} {
		turns.leave()
		require.Equal(t, next, enginestest.Receive(t, order))
	}
	turns.leave()
	require.Empty(t, turns.waiting)
	require.Empty(t, turns.order)
	require.Equal(t, 1, turns.free)
}

// A flood of requests for users that nobody knows neither holds up the requests
// of others nor piles up.
func TestAFloodOfOneCallerIsNotTheAnswerOfAnother(t *testing.T) {
	const atOnce, flood = 4, 3000
	f := newFixture(t)
	e := f.envelope()
	alice := grantOf(t, e, "alice")
	begun, release := make(chan string, flood), make(chan struct{})
	s := f.tokenService(e, func(_ context.Context, user string) ([]*store.Grant, error) {
		begun <- user
		<-release
		if user == "alice" {
			return []*store.Grant{alice}, nil
		}
		return nil, nil
	})
	s.turns.free = atOnce
	nc := f.js.Conn()
	require.NoError(t, s.Start(nc))
	ask := func(inbox, user, body string) {
		t.Helper()
		require.NoError(t, nc.PublishRequest(f.subjects.TokenGet(user), inbox, []byte(body)))
	}
	hear := func(inbox string) <-chan *nats.Msg {
		t.Helper()
		answers := make(chan *nats.Msg, flood)
		_, err := nc.ChanSubscribe(inbox, answers)
		require.NoError(t, err)
		return answers
	}
	floods, healthy, cheap := hear("_INBOX_flood."+f.subjects.Prefix+".*"), hear("_INBOX_healthy."+f.subjects.Prefix), hear("_INBOX_cheap."+f.subjects.Prefix)
	for i := range flood {
		user := fmt.Sprint("unknown-", i)
		ask(fmt.Sprintf("_INBOX_flood.%s.%d", f.subjects.Prefix, i), user, `{"userId":"`+user+`"}`)
	}
	ask("_INBOX_healthy."+f.subjects.Prefix, "alice", `{"userId":"alice"}`)
	// What is cheap to refuse is refused though no read has ended.
	ask("_INBOX_cheap."+f.subjects.Prefix, "alice", "junk")
	require.Equal(t, events.CodeBadRequest, enginestest.Receive(t, cheap).Header.Get(micro.ErrorHeader))
	// So is what finds no place, and is told when to ask again.
	for range flood - maxWaiting/2 {
		msg := enginestest.Receive(t, floods)
		require.Equal(t, events.CodeBusy, msg.Header.Get(micro.ErrorHeader))
		var r refusal
		require.NoError(t, json.Unmarshal(msg.Data, &r))
		require.Positive(t, r.RetryAfterSeconds)
	}
	for range atOnce { // the reads of the flood that came first
		require.NotEqual(t, "alice", enginestest.Receive(t, begun))
	}
	f.eventually(func() bool {
		s.turns.mu.Lock()
		defer s.turns.mu.Unlock()
		return len(s.turns.order) == 2
	}, "the healthy one does not wait for its turn")

	// Each read that ends lets one begin.
	reads := 0
	for found := false; !found; reads++ {
		release <- struct{}{}
		found = enginestest.Receive(t, begun) == "alice"
	}
	require.LessOrEqual(t, reads, 2, "of all that wait, hers is read first or second")
	close(release)
	require.Empty(t, enginestest.Receive(t, healthy).Header.Get(micro.ErrorHeader))
	require.NoError(t, s.Stop())
	require.Empty(t, s.places.rooms)
}
