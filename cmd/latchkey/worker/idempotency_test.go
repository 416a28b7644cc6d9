package worker_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
)

func TestDuplicatesChangeNothing(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	at := time.Now().Add(-time.Minute)
	c := h.issue("coinbase", "a", "b")
	for range 5 {
		h.publishConnected("u", c, at)
	}
	h.handled()
	stored := h.event(events.TokenStored, "u")
	h.get(h.refusing(events.TokenRequest{UserID: "u"}))
	for range 5 {
		h.publishConnected("u", c, at) // after the refresh: its tokens are spent
	}
	h.handled()
	require.Len(t, h.eventsOf(events.TokenStored, "u"), 1)
	grants := h.grants("u")
	require.Len(t, grants, 1)
	require.Equal(t, stored.Data.GrantID, grants[0].ID)
	require.EqualValues(t, 2, grants[0].Version)
	token := h.get(events.TokenRequest{UserID: "u"}).AccessTokens[0].AccessToken
	require.NotEqual(t, c.Accounts[0].AccessToken.Reveal(), token.Reveal())
	h.get(h.refusing(events.TokenRequest{UserID: "u"}))
	require.Empty(t, h.stack.Mesh.Ledger().ReplacedPresented())
}

func TestReconnectReplacesAndLateOldOnesAreIgnored(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	now := time.Now()
	first, second, third := h.issue("coinbase", "a"), h.issue("coinbase", "a"), h.issue("coinbase", "a")
	held := func() string { return h.get(events.TokenRequest{UserID: "u"}).AccessTokens[0].AccessToken.Reveal() }
	h.publishConnected("u", second, now.Add(-2*time.Minute))
	h.handled()
	require.Equal(t, second.Accounts[0].AccessToken.Reveal(), held())
	h.publishConnected("u", first, now.Add(-3*time.Minute))
	h.handled()
	require.Equal(t, second.Accounts[0].AccessToken.Reveal(), held())
	h.publishConnected("u", third, now.Add(-time.Minute))
	h.handled()
	require.Equal(t, third.Accounts[0].AccessToken.Reveal(), held())
	require.EqualValues(t, 2, h.nth(events.TokenStored, "u", 2).Data.Version)
	require.Len(t, h.grants("u"), 1)
	require.Len(t, h.eventsOf("", "u"), 2)
}

func TestReconnectRevivesAnExpiredGrant(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	h.connectAged("u", over, spec("coinbase"), "a", meshsim.Killed("no"))
	h.event(events.TokenExpired, "u")
	h.connectAged("u", fresh, spec("coinbase"), "a")
	stored := h.nth(events.TokenStored, "u", 2)
	h.get(events.TokenRequest{UserID: "u"})
	h.eventually(func() bool { return h.scheduled(stored.Data.GrantID) }, "no schedule")
	require.Nil(t, h.grants("u")[0].PurgeAt)
}

func TestEachAccountStandsInOneGrant(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	now := time.Now()
	held := func() map[string]string {
		out := map[string]string{}
		for _, token := range h.get(events.TokenRequest{UserID: "u"}).AccessTokens {
			require.NotContains(t, out, token.AccountID, "handed out twice")
			out[token.AccountID] = token.AccessToken.Reveal()
		}
		return out
	}
	both := h.issue("coinbase", "a", "b")
	h.publishConnected("u", both, now.Add(-3*time.Minute))
	together := h.event(events.TokenStored, "u").Data.GrantID

	a := h.issue("coinbase", "a")
	h.publishConnected("u", a, now.Add(-2*time.Minute))
	h.handled()
	require.Equal(t, map[string]string{"a": a.Accounts[0].AccessToken.Reveal(), "b": both.Accounts[1].AccessToken.Reveal()}, held())
	require.Len(t, h.grants("u"), 2)
	// The refresh of the trimmed grant answers both accounts at the institution.
	h.get(h.refusing(events.TokenRequest{UserID: "u", AccountID: "b"}))
	require.Equal(t, a.Accounts[0].AccessToken.Reveal(), held()["a"])

	b := h.issue("coinbase", "b")
	h.publishConnected("u", b, now.Add(-time.Minute))
	revoked := h.event(events.TokenRevoked, "u")
	require.Equal(t, together, revoked.Data.GrantID)
	require.Equal(t, events.ReasonReplaced, revoked.Data.Reason)
	require.Equal(t, map[string]string{"a": a.Accounts[0].AccessToken.Reveal(), "b": b.Accounts[0].AccessToken.Reveal()}, held())
	h.eventually(func() bool { return len(h.grants("u")) == 2 }, "the empty grant remains")

	again := h.issue("coinbase", "b", "a")
	h.publishConnected("u", again, now)
	h.nth(events.TokenRevoked, "u", 3)
	require.Equal(t, map[string]string{"b": again.Accounts[0].AccessToken.Reveal(), "a": again.Accounts[1].AccessToken.Reveal()}, held())
	h.eventually(func() bool { return len(h.grants("u")) == 1 }, "empty grants remain")
	require.Equal(t, together, h.grants("u")[0].ID, "the same accounts give the same grant")
}

// A connect that arrives after one that has taken its accounts is stored under
// another id, taken back, and never told.
func TestAConnectThatCameTooLateIsNotTold(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	now := time.Now()
	newer := h.issue("coinbase", "a", "b")
	h.publishConnected("u", newer, now.Add(-time.Minute))
	stored := h.event(events.TokenStored, "u")
	h.publishConnected("u", h.issue("coinbase", "a"), now.Add(-2*time.Minute))
	h.handled()
	require.Len(t, h.grants("u"), 1)
	require.Equal(t, stored.Data.GrantID, h.grants("u")[0].ID)
	require.Len(t, h.eventsOf("", "u"), 1)
	kept, err := h.js.Stream(h.ctx, h.subjects.LifecycleStream())
	require.NoError(t, err)
	require.EqualValues(t, 2, kept.CachedInfo().State.Msgs, "that, and what its publisher is told")
}

// story is what happens to the accounts a and b of a user, step by step: they
// are connected, or, after a dash, disconnected.
type story struct {
	steps []string
	want  map[string]int // account to the step whose token it holds in the end
}

var stories = map[string]story{
	"regrouped":            {[]string{"ab", "a", "ab"}, map[string]int{"a": 2, "b": 2}},
	"split":                {[]string{"ab", "a", "b"}, map[string]int{"a": 1, "b": 2}},
	"disconnected-between": {[]string{"ab", "-", "a"}, map[string]int{"a": 2}},
	"disconnected-at-last": {[]string{"ab", "a", "-"}, map[string]int{}},
	"account-disconnected": {[]string{"ab", "b", "-a"}, map[string]int{"b": 1}},
	"all-sorts":            {[]string{"ab", "-a", "b", "a"}, map[string]int{"a": 3, "b": 2}},
}

// telling publishes the steps of stories and remembers whose tokens are whose.
type telling struct {
	*harness
	now    time.Time
	origin map[string]int // token to step
}

func (h telling) publish(user string, s story, step int) {
	h.t.Helper()
	at := h.now.Add(time.Duration(step-len(s.steps)) * time.Minute)
	what := s.steps[step]
	if what[0] == '-' {
		scope := map[string]any{"userId": user, "disconnectedAt": at}
		if account := what[1:]; account != "" {
			scope["accountId"] = account
		} else {
			scope["everything"] = true
		}
		body, err := json.Marshal(scope)
		require.NoError(h.t, err)
		h.harness.publish(h.subjects.Disconnected(), string(body))
		return
	}
	c := h.issue("coinbase", strings.Split(what, "")...)
	for _, a := range c.Accounts {
		h.origin[a.AccessToken.Reveal()] = step
	}
	h.publishConnected(user, c, at)
}

func (h telling) check(user string, s story, order []int) {
	h.t.Helper()
	reply, _, _ := h.ask(events.TokenRequest{UserID: user})
	got := map[string]int{}
	for _, token := range reply.AccessTokens {
		require.NotContains(h.t, got, token.AccountID)
		got[token.AccountID] = h.origin[token.AccessToken.Reveal()]
	}
	require.Equal(h.t, s.want, got, "order %v", order)
	holders, want := map[string]int{}, map[string]int{}
	for _, g := range h.grants(user) {
		for _, a := range g.Accounts {
			holders[a.ID]++
		}
	}
	for account := range s.want {
		want[account] = 1
	}
	require.Equal(h.t, want, holders, "order %v: each account stands in one grant", order)
}

// gentle keeps the embedded database, which reads a collection whole to find
// anything, from being asked faster than it answers.
var gentle = []string{"LATCHKEY_CONNECT_CONCURRENCY=4", "LATCHKEY_RECONCILE_INTERVAL=30s"}

// tell calls do for a user of each story in six orders of its steps; that is
// all of them for three steps. A short run takes every other.
func tell(do func(user string, s story, order []int)) {
	for name, s := range stories {
		orders := permutations(len(s.steps))
		stride := len(orders) / 6
		if testing.Short() || enginestest.RaceDetector {
			stride *= 2
		}
		for i := 0; i < len(orders); i += stride {
			order := orders[i]
			do(fmt.Sprint(name, i), s, order)
		}
	}
}

func TestAnyOrderEndsTheSame(t *testing.T) {
	t.Parallel()
	h := telling{start(t, nil), time.Now(), map[string]int{}}
	h.worker(gentle...)
	for k := range 4 {
		tell(func(user string, s story, order []int) {
			if k < len(order) {
				h.publish(user, s, order[k])
			}
		})
		h.handled()
	}
	tell(h.check)
	require.Empty(t, h.stack.Mesh.Ledger().Requests)
}

func TestAllAtOnceEndsTheSame(t *testing.T) {
	t.Parallel()
	h := telling{start(t, nil), time.Now(), map[string]int{}}
	h.worker(gentle...)
	h.worker(gentle...)
	tell(func(user string, s story, order []int) {
		for _, step := range order {
			h.publish(user, s, step)
		}
	})
	h.handled()
	tell(h.check)
}

func permutations(n int) [][]int {
	if n == 0 {
		return [][]int{{}}
	}
	var out [][]int
	for _, p := range permutations(n - 1) {
		for i := range n {
			out = append(out, slices.Insert(slices.Clone(p), i, n-1))
		}
	}
	return out
}

func TestLateConnectDoesNotUndoADisconnect(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	c := h.issue("coinbase", "a")
	delayed := h.issueSpec(meshsim.ConnectSpec{BrokerType: "coinbase", Delayed: true}, "b")
	h.disconnect("u", "", "")
	h.handled()
	for range 2 {
		h.publishConnected("u", c, time.Now().Add(-time.Minute))
		h.publishConnected("u", delayed, time.Now().Add(-time.Minute))
	}
	h.handled()
	require.Empty(t, h.grants("u"))
	require.Empty(t, h.eventsOf("", "u"))
	_, code, _ := h.ask(events.TokenRequest{UserID: "u"})
	require.Equal(t, events.CodeUnknownUser, code)
}
