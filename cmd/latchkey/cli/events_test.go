package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/stretchr/testify/require"
)

func TestAnEventThatNoWorkerWroteIsToldSafely(t *testing.T) {
	for _, output := range []format{asTable, asJSON} {
		var out, stderr strings.Builder
		s := &session{out: &out, stderr: &stderr, output: output}
		require.NoError(t, s.showEvent([]byte("{\x1b[2J")))
		require.Contains(t, stderr.String(), "no worker wrote")
		require.NotContains(t, stderr.String(), "\x1b")
		require.Empty(t, out.String(), "other programs read it")
	}
}

// TestAnEventIsShownAsTheCloudEventThatItIs, in one line that breaks no terminal.
func TestAnEventIsShownAsTheCloudEventThatItIs(t *testing.T) {
	e := events.LifecycleEvent{
		ID: "id", Kind: events.TokenExpired, Source: "latchkey/here", Time: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC),
		Data: events.Lifecycle{UserID: "alice", GrantID: "grant", BrokerType: "coinbase", BrokerName: "<Coin\u202ebase>", Accounts: []events.Account{{AccountID: "a", AccountName: "Main"}}, Version: 3, Reason: events.ReasonRejected, Labels: map[string]string{"team": "x"}},
	}
	body, err := e.Encode()
	require.NoError(t, err)
	var indented bytes.Buffer
	require.NoError(t, json.Indent(&indented, body, "", "  "))
	var out strings.Builder
	s := &session{out: &out, output: asJSON}
	require.NoError(t, s.showEvent(indented.Bytes()))
	require.Equal(t, 1, strings.Count(out.String(), "\n"))
	require.NotContains(t, out.String(), "\u202e")
	require.JSONEq(t, string(body), out.String())
	shown, err := events.DecodeLifecycle([]byte(out.String()))
	require.NoError(t, err)
	require.Equal(t, e, shown)

	out.Reset()
	s = &session{out: screen{&out}, output: asTable}
	require.NoError(t, s.showEvent(body))
	require.Equal(t, "2026-03-01T00:00:00Z  \x1b[31mtoken.expired  \x1b[0m  grant  coinbase  alice  version 3  rejected\n", out.String())
}
