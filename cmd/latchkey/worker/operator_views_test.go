package worker_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/operator"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/events"
)

// kinds returns what an overview says is wrong.
func kinds(o operator.Overview) (all []string) {
	for _, c := range o.Conditions {
		all = append(all, c.Kind)
	}
	return all
}

// TestTheOperatorsPageInAnOutage: it says at once what is away and shows what is not, and
// is up to date again soon after.
func TestTheOperatorsPageInAnOutage(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	if h.stack.MongoDB == nil || h.stack.NATS == nil {
		t.Skip("makes engines fail")
	}
	h.worker("LATCHKEY_ADMIN_LISTEN=127.0.0.1:0")
	h.connect("alice", spec("coinbase"))
	h.event(events.TokenStored, "alice")
	// What a worker tells the others waits for no database.
	var asked atomic.Bool
	h.stack.MongoDB.Proxy().Swallow(func(command, _ string) bool {
		asked.Store(asked.Load() || command == "ping")
		return false
	})
	stats, err := h.nc.Request("$SRV.STATS", nil, patience)
	require.NoError(t, err)
	require.Contains(t, string(stats.Data), `"refreshed":`)
	require.False(t, asked.Load())

	r := h.reader()
	require.Eventually(t, func() bool { return len(kinds(r.overview())) == 0 }, patience, 20*time.Millisecond)

	// MongoDB hangs: what is in NATS stays up to date.
	h.stack.MongoDB.Proxy().Swallow(func(command, _ string) bool {
		return slices.Contains([]string{"ping", "find", "aggregate", "count"}, command)
	})
	hangs := time.Now()
	var o operator.Overview
	h.eventually(func() bool {
		o = r.overview()
		return slices.Contains(kinds(o), "not_ready") && o.Letters.At.After(hangs) && o.Queues.At.After(hangs)
	}, "it does not say that MongoDB hangs, or hangs with it")
	require.Contains(t, o.Conditions[0].Title, "MongoDB: no answer within")
	require.NotZero(t, o.Stock.At, "what was known is shown with its time")
	h.stack.MongoDB.Proxy().Swallow(nil)
	restored := time.Now()
	h.eventually(func() bool {
		o = r.overview()
		return len(kinds(o)) == 0 && o.Stock.At.After(restored) && o.Schedule.At.After(restored) && o.Overdue.At.After(restored) && o.Verdicts.At.After(restored) && o.Failing.At.After(restored)
	}, "it is not up to date")
	require.EqualValues(t, 1, o.Stock.Value.ByState["active"])

	// Without NATS nothing is received either.
	h.stack.NATS.Stop()
	gone := time.Now()
	h.eventually(func() bool {
		o = r.overview()
		return slices.Contains(kinds(o), "not_ready") && o.Verdicts.At.After(gone)
	}, "it does not say that NATS is away")
	for _, c := range o.Readiness.Value.Checks {
		require.Equal(t, c.Name == "MongoDB" || c.Name == "KMS", c.OK, c.Name)
	}
	require.NoError(t, h.stack.NATS.Restart())
	restored = time.Now()
	h.eventually(func() bool {
		o = r.overview()
		return len(kinds(o)) == 0 && o.Letters.At.After(restored) && o.Queues.At.After(restored) && o.Workers.At.After(restored)
	}, "it is not up to date")
}

type grantShown struct {
	ID, User, Broker, State string
	LastError               *struct{ Class string }
}

// list returns a page of a list of grants, and where the next begins.
func (r *reader) list(query string) (users []string, next string) {
	r.t.Helper()
	var page struct {
		Grants []grantShown
		Next   string
	}
	r.read("/api/grants?"+query, &page)
	for _, g := range page.Grants {
		users = append(users, g.User)
	}
	return users, page.Next
}

// readsLists lists alice at coinbase, a hostile user at kraken, and mfa at gemini.
func (r *reader) readsLists(hostile string) {
	t := r.t
	t.Helper()
	for query, want := range map[string][]string{
		"":                           {"alice", hostile, "mfa"},
		"state=must_act":             {"mfa"},
		"state=expired":              nil,
		"broker=KRAKEN":              {hostile},
		"broker=kraken&state=active": {hostile},
		"broker=%22%24ne":            nil,
		"order=failed":               {"mfa"},
		"order=failed&error=dead":    nil,
		"error=must_act":             {"mfa"},
		"order=overdue":              nil,
		"user=alice&state=must_act":  nil,
		"user=mfa&order=failed":      {"mfa"},
	} {
		users, next := r.list(query)
		require.ElementsMatch(t, want, users, query)
		require.Empty(t, next, query)
	}
	for _, bad := range []string{"state=other", "order=other", "after=x", "order=due&after=x", "user=", "user=a%00b"} {
		status, body := r.get("/api/grants?" + bad)
		require.Equal(t, http.StatusBadRequest, status, bad+body)
	}
	for _, view := range []string{"/grants", "/grants?state=active", "/brokers", "/dead-letters?reason=x", "/workers"} {
		status, page := r.get(view)
		require.Equal(t, http.StatusOK, status, view)
		require.Contains(t, page, `src="./assets/page.js"`, view)
	}
	_, page := r.get("/grants/x")
	require.Contains(t, page, `src="../assets/page.js"`, "it is a folder deeper")
	o := r.overview()
	require.Empty(t, o.Failing.Value.Brokers, "the user must act: that is no failure")
	require.NotEmpty(t, o.Own.Outcomes)
}

type lettersShown struct {
	Letters int
	Again   int
	Partial bool
	Through uint64
	Reasons []struct {
		Reason, Message string
		Letters, Again  int
	}
}

func (r *reader) reasons(query string) (out lettersShown) {
	r.t.Helper()
	r.read("/api/dead-letters/reasons?"+query, &out)
	return out
}

// actsOnLetters replays and drops dead letters by a filter; there are none before and after.
func (r *reader) actsOnLetters() {
	t := r.t
	t.Helper()
	for _, user := range []string{"bob", "carol"} {
		for range 2 {
			r.publish(r.subjects.Connected(), fmt.Sprintf(`{"userId":%q,"payload":{}}`, user))
		}
	}
	r.publish(r.subjects.Disconnected(), `junk`)
	r.eventually(func() bool { return r.reasons("").Letters == 5 }, "no dead letters")
	of := func(query string) int { return r.reasons(query).Letters }
	require.Equal(t, 2, of("user=bob"))
	require.Equal(t, 1, of("message=integration.disconnected"))
	require.Equal(t, 4, of("reason=PAYLOAD"))
	all := r.reasons("")
	require.Len(t, all.Reasons, 2)
	require.Equal(t, 4, all.Reasons[0].Letters)
	require.Equal(t, 4, of("is="+url.QueryEscape(all.Reasons[0].Reason)))
	require.Len(t, r.letters("?user=carol").Letters, 2)
	require.Zero(t, of("user=nobody"))

	for _, bad := range []string{`{}`, `{"user":"bob"}`, `{"user":"a\u0000b","through":9}`, ``} {
		status, _ := r.post("/api/dead-letters/drop", bad)
		require.Equal(t, http.StatusBadRequest, status, bad)
	}
	var answer struct{ Text, At string }
	act := func(call, filter string) {
		t.Helper()
		status, body := r.post("/api/dead-letters/"+call, filter)
		require.Equal(t, http.StatusOK, status, body)
		require.NoError(t, json.Unmarshal([]byte(body), &answer))
	}
	act("replay", fmt.Sprintf(`{"user":"bob","through":%d}`, all.Through))
	require.Equal(t, "2 replayed.", answer.Text)
	require.NotEmpty(t, answer.At)
	r.eventually(func() bool { return r.reasons("since="+url.QueryEscape(answer.At)).Again == 2 }, "it does not say what failed again")
	require.Equal(t, 2, r.reasons("user=bob").Reasons[0].Again)
	require.Equal(t, 5, of(""))
	r.eventually(func() bool {
		return strings.Contains((&onCall{harness: r.harness}).ok("audit", "list", "--action", "operated", "--user", "bob", "-o", "json"), "deadletter.replay")
	}, "the audit log does not say whom it concerned")
	act("drop", fmt.Sprintf(`{"through":%d}`, all.Through))
	require.Equal(t, "3 dropped.", answer.Text, "those that came since stay")
	act("drop", `{"reason":"payload","through":99999}`)
	require.Equal(t, "2 dropped.", answer.Text)
	require.Zero(t, of(""))
}

// TestThePageNamesAMissingPermission: where NATS does not permit what the page offers it says so
// at once.
func TestThePageNamesAMissingPermission(t *testing.T) {
	t.Parallel()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true, NoAuthUser: "worker",
		Users: []*server.User{
			{Username: "publisher", Password: "p"},
			{Username: "worker", Password: "w", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Deny: []string{"*.integration.connected", "$SRV.STATS.>"}},
			}},
		},
	})
	require.NoError(t, err)
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	require.True(t, s.ReadyForConnections(patience))
	h := startAt(t, stack.Options{}, s.ClientURL(), "")
	h.worker("LATCHKEY_ADMIN_LISTEN=127.0.0.1:0")
	publisher, err := nats.Connect(s.ClientURL(), nats.UserInfo("publisher", "p"))
	require.NoError(t, err)
	t.Cleanup(publisher.Close)
	for range 2 {
		_, err = publisher.Request(h.subjects.Connected(), []byte(`{"userId":"bob","payload":{}}`), patience)
		require.NoError(t, err)
	}
	r := h.reader()
	h.eventually(func() bool { return r.reasons("").Letters == 2 }, "no dead letter")
	denied := fmt.Sprintf("NATS does not permit a client without credentials to publish to %q (in deploy/nats may: ", h.subjects.Connected())
	first := r.letters("").Letters[0]
	status, body := r.post(fmt.Sprintf("/api/dead-letters/%d/replay", first.Sequence), fmt.Sprintf(`{"id":%q}`, first.ID))
	require.Equal(t, http.StatusConflict, status)
	require.Contains(t, unquoted(t, body), denied)
	status, body = r.post("/api/dead-letters/replay", `{"through":99}`)
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, unquoted(t, body), "0 replayed. 1 failed: "+denied, "the second is not tried in vain")
	require.Equal(t, 2, r.reasons("").Letters)
	h.eventually(func() bool {
		return strings.Contains(r.overview().Workers.Problem, `to publish to "$SRV.STATS.`)
	}, "it does not say why there are no workers")
}

// unquoted returns the text in an answer.
func unquoted(t *testing.T, body string) string {
	t.Helper()
	var answer struct{ Error, Text string }
	require.NoError(t, json.Unmarshal([]byte(body), &answer))
	return answer.Error + answer.Text
}
