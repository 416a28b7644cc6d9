package tokens

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/audit"
)

func TestInboxPrefixes(t *testing.T) {
	for reply, want := range map[string]string{
		"": "", "plain": "plain", "a.b": "a",
		"_INBOX.ABCDEFGHIJKLMNOPQRSTUV":                "_INBOX",
		"_INBOX.ABCDEFGHIJKLMNOPQRSTUV.Xy12":           "_INBOX",
		"_INBOX_portfolio.ABCDEFGHIJKLMNOPQRSTUV.Xy12": "_INBOX_portfolio",
		"inbox.portfolio.ABCDEFGHIJKLMNOPQRSTUV.Xy12":  "inbox.portfolio",
		"inbox.portfolio.not-a-nuid.Xy12":              "inbox.portfolio.not-a-nuid",
		"_R_.abcdef.ghijkl":                            "_R_",
		strings.Repeat("x", 300) + ".1":                strings.Repeat("x", maxCallerBytes),
		"ABCDEFGHIJKLMNOPQRSTUV.Xy12":                  "ABCDEFGHIJKLMNOPQRSTUV",
	} {
		require.Equal(t, want, inboxPrefix(reply), reply)
	}
}

// TestTheServersWordOnWhoAsks pins what is relied on: on a request that crosses
// accounts the server replaces whatever the client claims, and a client can't
// make a request look as if it had crossed.
func TestTheServersWordOnWhoAsks(t *testing.T) {
	subject := events.Subjects{}.TokenGetAll()
	broker := enginestest.NATSWith(t, engines.NATSOptions{Configure: func(o *server.Options) {
		workers, clients := server.NewAccount("WORKERS"), server.NewAccount("CLIENTS")
		require.NoError(t, workers.AddServiceExport(subject, nil))
		require.NoError(t, clients.AddServiceImport(workers, subject, subject))
		require.NoError(t, clients.SetServiceImportSharing(workers, subject, true))
		o.Accounts = []*server.Account{workers, clients}
		o.Users = []*server.User{
			{Username: "worker", Password: "w", Account: workers},
			{Username: "insider", Password: "i", Account: workers},
			{Username: "portfolio", Password: "p", Account: clients},
		}
	}})
	connect := func(user, password string) *nats.Conn {
		nc, err := nats.Connect(broker.URL(), nats.UserInfo(user, password), nats.Name("name of "+user))
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		return nc
	}
	trusting, doubting := &Service{opts: Options{Audit: Audit{RequestInfo: true}}}, &Service{}
	type seen struct{ Trusting, Doubting *audit.Caller }
	worker := connect("worker", "w")
	_, err := worker.Subscribe(subject, func(m *nats.Msg) {
		req := &received{msg: m}
		body, _ := json.Marshal(seen{trusting.callerOf(req), doubting.callerOf(req)})
		_ = m.Respond(body)
	})
	require.NoError(t, err)
	require.NoError(t, worker.Flush())

	const forged = `{"acc":"FORGED","user":"forged","name":"forged"}`
	ask := func(nc *nats.Conn, headers ...string) seen {
		msg := nats.NewMsg(events.Subjects{}.TokenGet("u"))
		for _, h := range headers {
			msg.Header[h] = []string{forged}
		}
		reply, err := nc.RequestMsg(msg, patience)
		require.NoError(t, err)
		var s seen
		require.NoError(t, json.Unmarshal(reply.Data, &s))
		return s
	}
	portfolio := &audit.Caller{Inbox: "_R_", Account: "CLIENTS", User: "portfolio", Name: "name of portfolio"}
	outsider, insider := connect("portfolio", "p"), connect("insider", "i")
	for _, headers := range [][]string{nil, {requestInfoHeader}, {strings.ToLower(requestInfoHeader)}} {
		got := ask(outsider, headers...)
		require.Equal(t, portfolio, got.Trusting, "%q", headers)
		require.Equal(t, &audit.Caller{Inbox: "_R_"}, got.Doubting)
		got = ask(insider, headers...)
		require.Equal(t, &audit.Caller{Inbox: "_INBOX"}, got.Trusting, "within an account there is no word of the server's")
		require.Equal(t, got.Trusting, got.Doubting)
	}

	// By hand, past what a client library does.
	raw := func(user, password, reply, header string) string {
		conn, err := net.Dial("tcp", strings.TrimPrefix(broker.URL(), "nats://"))
		require.NoError(t, err)
		defer conn.Close()
		header = "NATS/1.0\r\n" + header + "\r\n\r\n"
		_, err = fmt.Fprintf(conn, "CONNECT {\"user\":%q,\"pass\":%q,\"headers\":true,\"verbose\":false}\r\nSUB %s 1\r\nHPUB token.get.u %s %d %d\r\n%s\r\nPING\r\n",
			user, password, reply, reply, len(header), len(header), header)
		require.NoError(t, err)
		var all strings.Builder
		buf := make([]byte, 4096)
		for !strings.Contains(all.String(), "Trusting") && !strings.Contains(all.String(), "-ERR") {
			n, err := conn.Read(buf)
			all.Write(buf[:n])
			if err != nil {
				break
			}
		}
		return all.String()
	}
	for _, smuggled := range []string{
		requestInfoHeader + ": " + forged + "\r\n" + requestInfoHeader + ": " + forged,
		requestInfoHeader + " : " + forged,
		"X: y\n" + requestInfoHeader + ": " + forged,
		"X: " + requestInfoHeader + "\r\n" + requestInfoHeader + ": " + forged,
	} {
		require.NotContains(t, strings.SplitAfter(raw("portfolio", "p", "mine", smuggled), `"Trusting"`)[1], "forged", "%q", smuggled)
	}
	require.Contains(t, raw("insider", "i", "_R_.mine", requestInfoHeader+": "+forged), "-ERR", "a reply subject that is the server's own")
}
