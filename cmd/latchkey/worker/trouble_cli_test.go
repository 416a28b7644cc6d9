package worker_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/cli"
	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/config"
)

// TestTroubleWithNATSIsToldApart has commands meet servers that are of no use, each in
// another way.
func TestTroubleWithNATSIsToldApart(t *testing.T) {
	t.Parallel()
	tokens := filepath.Join(t.TempDir(), "tokens.ndjson")
	require.NoError(t, os.WriteFile(tokens, []byte(`{"userId":"alice","brokerType":"coinbase","accountId":"a","accessToken":"x"}`+"\n"), 0o600))
	commands := [][]string{
		{"deadletters", "list"},
		{"deadletters", "drop", "--yes", "x"},
		{"events", "tail"},
		{"events", "tail", "--follow=false"},
		{"audit", "list"},
		{"import", tokens, "--timeout", "100ms"},
	}
	user := func(name string, more ...string) []string {
		return append([]string{"LATCHKEY_NATS_USERNAME=" + name, "LATCHKEY_NATS_PASSWORD=password-of-" + name}, more...)
	}
	nats := enginestest.NATSWith(t, engines.NATSOptions{Configure: func(o *server.Options) {
		on, off := server.NewAccount("on"), server.NewAccount("off")
		o.Accounts = []*server.Account{on, off}
		nothing := &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{">"}}}
		deaf := &server.Permissions{Subscribe: &server.SubjectPermission{Deny: []string{">"}}}
		o.Users = []*server.User{
			{Username: "off", Password: "password-of-off", Account: off},
			{Username: "nothing", Password: "password-of-nothing", Account: on, Permissions: nothing},
			{Username: "deaf", Password: "password-of-deaf", Account: on, Permissions: deaf},
		}
	}}).URL()
	bare := enginestest.NATSWith(t, engines.NATSOptions{Configure: func(o *server.Options) { o.JetStream = false }}).URL()
	for name, c := range map[string]struct {
		url      string
		settings []string
		told     string
	}{
		"nobody there":        {"nats://127.0.0.1:1", nil, "no server answers at nats://127.0.0.1:1"},
		"a wrong password":    {nats, []string{"LATCHKEY_NATS_USERNAME=nothing", "LATCHKEY_NATS_PASSWORD=wrong-one"}, `does not take the credentials of the user "nothing"`},
		"no credentials":      {nats, nil, "does not take the credentials of a client without credentials"},
		"no JetStream":        {bare, nil, "no JetStream answers"},
		"not this account":    {nats, user("off"), "this account of NATS has no JetStream"},
		"may publish nothing": {nats, user("nothing"), `NATS does not permit the user "nothing" to publish to "`},
		"may hear nothing":    {nats, user("deaf"), `NATS does not permit the user "deaf" to subscribe to "_INBOX.`},
	} {
		for _, command := range commands {
			if command[0] == "import" && strings.Contains(c.told, "JetStream") {
				continue // which it waits for
			}
			t.Run(name+", "+strings.Join(command[:2], " "), func(t *testing.T) {
				t.Parallel()
				var out bytes.Buffer
				// As from a shell: the context has no deadline that would end what waits.
				code := cli.Run(t.Context(), command, append([]string{"LATCHKEY_NATS_URL=" + c.url}, c.settings...), &out, &out)
				require.Equal(t, cli.ExitFailed, code, out.String())
				require.Contains(t, out.String(), c.told)
				require.NotContains(t, out.String(), "wrong-one")
			})
		}
	}
}

// What waits for a server that has died ends, and says so.
func TestALostConnectionIsNamed(t *testing.T) {
	t.Parallel()
	broker := enginestest.NATS(t)
	engine := broker.Embedded()
	cfg := config.NATS{URL: broker.URL(), InboxPrefix: "_INBOX", ConnectTimeout: patience}
	nc, err := worker.Connect(cfg, "test", zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := worker.JetStream(nc)
	require.NoError(t, err)
	engine.Stop()
	require.Eventually(t, func() bool { return !nc.IsConnected() }, patience, 10*time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = js.Stream(ctx, "ANY")
	require.ErrorContains(t, worker.Explain(ctx, nc, err), "the connection to NATS is lost")
	require.ErrorIs(t, worker.Explain(ctx, nc, err), context.DeadlineExceeded)
	require.ErrorContains(t, worker.Explain(t.Context(), nil, jetstream.ErrNoStreamResponse), "no stream takes what is published")
}
