package tokens

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// startedService answers for any user with tokens.
func (f *fixture) startedService() *Service {
	e := f.envelope()
	s := f.tokenService(e, func(_ context.Context, user string) ([]*store.Grant, error) {
		return []*store.Grant{grantOf(f.t, e, user)}, nil
	})
	require.NoError(f.t, s.Start(f.js.Conn()))
	f.t.Cleanup(func() { require.NoError(f.t, s.Stop()) })
	return s
}

// A caller names the reply subject, and the worker may publish where the caller
// may not.
func TestRepliesGoToInboxesOnly(t *testing.T) {
	f := newFixture(t)
	s := f.startedService()
	nc, err := nats.Connect(f.js.Conn().ConnectedUrl())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	heard := make(chan *nats.Msg, 1000)
	_, err = nc.ChanSubscribe(">", heard)
	require.NoError(t, err)

	bad := []string{
		"", "other", "token.get.alice", "$JS.API.STREAM.DELETE." + f.subjects.AuditStream(), "$JS.API.STREAM.PURGE." + f.subjects.LifecycleStream(),
		"$SYS.REQ.SERVER.PING", "$SRV.STATS", "_INBOX", "_INBOXx.a", "x._INBOX.a",
		f.subjects.Connected(), f.subjects.Disconnected(), f.subjects.TokenKeys(), f.subjects.RefreshSchedule("g"), f.subjects.RefreshDue(), f.subjects.RefreshUrgent(),
		f.subjects.Recovery("g"), f.subjects.DeadLetter("tag", "name"), f.subjects.AuditPartitions()[0].Chain("forged"), f.subjects.Canary(),
	}
	for _, kind := range events.LifecycleKinds {
		bad = append(bad, f.subjects.Lifecycle(kind, "alice"))
	}
	for _, reply := range bad {
		for _, body := range []string{`{"userId":"alice"}`, `{"userId":"bob"}`, "junk"} { // tokens, and refusals
			require.NoError(t, nc.PublishMsg(&nats.Msg{Subject: f.subjects.TokenGet("alice"), Reply: reply, Data: []byte(body)}))
		}
	}
	// What is asked afterwards is answered afterwards.
	msg, err := nc.Request(f.subjects.TokenGet("alice"), []byte(`{"userId":"alice"}`), patience)
	require.NoError(t, err)
	require.Empty(t, msg.Header.Get(micro.ErrorHeader))
	require.NoError(t, nc.Flush())
	for len(heard) > 0 {
		m := <-heard
		inbox := strings.HasPrefix(m.Subject, "_INBOX.")
		request := m.Subject == f.subjects.TokenGet("alice") && !strings.Contains(string(m.Data), "accessToken")
		require.True(t, inbox || request, m.Subject)
	}
	require.EqualValues(t, 3*len(bad), testutil.ToFloat64(s.requests.WithLabelValues(codeBadReply)))
	require.Equal(t, 1, strings.Count(f.logs.String(), "requests that name no inbox"), "the log is told once")
	for _, stream := range []string{f.subjects.AuditStream(), f.subjects.LifecycleStream(), f.subjects.IntegrationStream(), f.subjects.DeadLetterStream(), f.subjects.RefreshStream(), f.subjects.RecoveryStream()} {
		require.Zero(t, f.left(stream), stream)
	}
}

func TestTheKeysGoToInboxesOnly(t *testing.T) {
	f := newFixture(t)
	s := f.tokenService(f.envelope(), nil)
	s.receiveKeys(requestWith{reply: f.subjects.AuditPartitions()[0].Chain("forged")}) // else it would look for its keys
	require.Error(t, s.respond(requestWith{reply: f.subjects.AuditPartitions()[0].Chain("forged")}, nil, nil))
}

// requestWith is a request with a reply subject.
type requestWith struct {
	request
	reply string
}

func (r requestWith) Reply() string { return r.reply }

func (requestWith) done(string) {}

func TestNoTokenIsSentWhereAStreamStoresIt(t *testing.T) {
	f := newFixture(t)
	nc := f.js.Conn()
	s := f.startedService()
	ask := func(inbox string) string {
		t.Helper()
		answers := make(chan *nats.Msg, 1)
		sub, err := nc.ChanSubscribe(inbox, answers)
		require.NoError(t, err)
		require.NoError(t, nc.PublishRequest(f.subjects.TokenGet("alice"), inbox, []byte(`{"userId":"alice"}`)))
		msg := enginestest.Receive(t, answers)
		require.NoError(t, sub.Unsubscribe())
		return msg.Header.Get(micro.ErrorHeader)
	}
	name := strings.ToUpper(f.subjects.Prefix) + "_ARCHIVE"
	spied := "_INBOX_" + f.subjects.Prefix
	require.Empty(t, ask(spied+".a"))
	_, err := f.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{spied + ".>", f.subjects.Prefix + ".other"}})
	require.NoError(t, err)
	told := s.findCollectors(t.Context(), f.js, "")
	require.Contains(t, told, spied+".>")
	require.NotContains(t, told, ".other")
	require.Equal(t, events.CodeInternal, ask(spied+".a"))
	require.Empty(t, ask("_INBOX.of-"+f.subjects.Prefix), "what others name is not stored")
	require.Equal(t, told, s.findCollectors(t.Context(), f.js, told))
	require.Equal(t, 1, strings.Count(f.logs.String(), "streams store replies"))

	ended, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	require.Equal(t, told, s.findCollectors(ended, f.js, told), "without an answer it stays as it is")
	require.Equal(t, events.CodeInternal, ask(spied+".a"))

	require.NoError(t, f.js.DeleteStream(t.Context(), name))
	require.Empty(t, s.findCollectors(t.Context(), f.js, told))
	require.Empty(t, ask(spied+".a"))
}
