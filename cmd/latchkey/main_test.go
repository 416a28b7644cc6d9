package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/store/streams/streamstest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"latchkey": main, "busy": busy})
}

// busy is a command that has much to finish.
func busy() {
	ctx, stop := interruptible()
	defer stop()
	fmt.Println("working")
	<-ctx.Done()
	fmt.Println("finishing")
	select {}
}

// TestASecondCtrlCEndsAtOnce what the first lets finish. SIGTERM never does.
func TestASecondCtrlCEndsAtOnce(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "busy")
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(stdout)
	require.True(t, lines.Scan())
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.True(t, lines.Scan())
	require.Equal(t, "finishing", lines.Text())
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit)
			require.Equal(t, syscall.SIGINT, exit.Sys().(syscall.WaitStatus).Signal())
			return
		case <-time.After(10 * time.Millisecond): // its handler may not be gone yet
			_ = cmd.Process.Signal(os.Interrupt)
		}
	}
}

// TestCommands runs the transcripts in testdata.
func TestCommands(t *testing.T) {
	url := withLetters(t)
	testscript.Run(t, testscript.Params{Dir: "testdata", Setup: func(e *testscript.Env) error {
		e.Setenv("NATS_URL", url)
		return nil
	}})
}

// withLetters starts NATS with the streams and three dead letters, and returns its address.
func withLetters(t *testing.T) string {
	t.Helper()
	broker := enginestest.NATSWith(t, engines.NATSOptions{})
	nc, err := nats.Connect(broker.URL())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	cfg := config.Default()
	_, err = streamstest.New(js, cfg, zap.NewNop()).Ensure(t.Context())
	require.NoError(t, err)
	subjects := cfg.NATS.Subjects()
	for i, letter := range []handlers.DeadLetter{
		{Message: events.IntegrationConnected, Subject: subjects.Connected(), Reason: "payload: missing"},
		{Message: events.IntegrationConnected, Subject: subjects.Connected(), Reason: "payload: missing"},
		{Message: events.RefreshDueName, Subject: subjects.RefreshDue(), Reason: "a fault"},
	} {
		letter.ID = fmt.Sprint("letter-", i+1)
		letter.ParkedAt = time.Date(2026, 3, 1, 0, 0, i+1, 0, time.UTC)
		body, err := json.Marshal(letter)
		require.NoError(t, err)
		_, err = js.Publish(t.Context(), subjects.DeadLetter(events.UnknownTag, letter.Message), body)
		require.NoError(t, err)
	}
	return broker.URL()
}

// TestTheWorkerLinksNoEngine: what only the sandbox and the tests need must
// not be part of the program that runs in production.
func TestTheWorkerLinksNoEngine(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	require.NoError(t, err, string(out))
	for _, dep := range strings.Fields(string(out)) {
		for _, engine := range []string{"latchkey/cmd/sandbox", "nats-server", "FerretDB", "sqlite", "stretchr/testify", "pgregory.net"} {
			require.NotContains(t, dep, engine)
		}
	}
}
