package worker_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/cli"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/store"
)

// onCall is somebody at the command line, and all that was shown to him.
type onCall struct {
	*harness
	with  []string // settings
	shown bytes.Buffer
}

// run runs a command line against the installation.
func (o *onCall) run(args ...string) (code int, stdout, stderr string) {
	o.t.Helper()
	var out, err bytes.Buffer
	code = cli.Run(o.ctx, args, append(o.stack.Environ(), o.settings(o.with...)...), &out, &err)
	o.shown.Write(out.Bytes())
	o.shown.Write(err.Bytes())
	return code, out.String(), err.String()
}

// ok runs a command line that must succeed. What it writes to standard error
// can only be how far a long one has come.
func (o *onCall) ok(args ...string) string {
	o.t.Helper()
	code, stdout, stderr := o.run(args...)
	require.Equal(o.t, cli.ExitOK, code, stderr)
	require.NotContains(o.t, stderr, "latchkey:")
	return stdout
}

// fails runs a command line that must fail.
func (o *onCall) fails(args ...string) string {
	o.t.Helper()
	code, stdout, stderr := o.run(args...)
	require.Equal(o.t, cli.ExitFailed, code, stdout)
	return stderr
}

// letters lists the dead letters.
func (o *onCall) letters() []handlers.DeadLetter {
	o.t.Helper()
	var out []handlers.DeadLetter
	require.NoError(o.t, json.Unmarshal([]byte(o.ok("deadletters", "list", "--output", "json")), &out))
	return out
}

func TestDeadLettersOnTheCommandLine(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	o := &onCall{harness: h}
	require.Contains(t, o.fails("deadletters", "list"), "no stream")
	w := h.worker("LATCHKEY_CONNECT_MAX_BYTES=4096")
	require.Empty(t, o.letters())

	big := func(account string) (body string, secrets []string) {
		c := h.issueSpec(meshsim.ConnectSpec{BrokerType: "coinbase", LogoBytes: 8 << 10}, account)
		return fmt.Sprintf(`{"userId":%q,"payload":%s}`, account, c.Payload.Reveal()),
			[]string{c.Accounts[0].AccessToken.Reveal(), c.Accounts[0].RefreshToken.Reveal()}
	}
	plain, secrets := big("plain")
	enveloped, more := big("enveloped")
	secrets = append(secrets, more...)
	stated := time.Now().UTC().Truncate(time.Second).Add(-life / 4)
	before := time.Now().Add(-time.Millisecond)
	h.publish(h.subjects.Connected(), plain)
	after := time.Now().Add(time.Millisecond)
	h.deadLetters(1) // keeps the order
	h.publish(h.subjects.Connected(), cloudEvent(events.IntegrationConnected, stated.Format(time.RFC3339), enveloped))
	h.deadLetters(2)
	h.publish(h.subjects.Connected(), secrets[0])
	h.deadLetters(3)

	letters := o.letters()
	require.Len(t, letters, 3)
	for _, letter := range letters {
		require.Equal(t, events.IntegrationConnected, letter.Message)
		require.Equal(t, 1, letter.Attempts)
		require.Empty(t, letter.Sealed)
	}
	require.Contains(t, letters[0].Reason, "max_bytes")
	require.Contains(t, letters[2].Reason, "not well-formed")
	require.WithinRange(t, letters[0].StoredAt, before, after)
	table := strings.Split(strings.TrimSpace(o.ok("deadletters", "list")), "\n")
	require.Len(t, table, 4)
	for i, letter := range letters {
		require.Regexp(t, "^"+letter.ID+" +integration.connected +1 .*"+regexp.QuoteMeta(letter.Reason), table[i+1])
	}
	shown := o.ok("deadletters", "show", letters[2].ID) + o.ok("deadletters", "show", letters[2].ID, "-o", "json")
	require.Contains(t, shown, letters[2].Reason)
	require.NotContains(t, shown, "sealed")
	require.Equal(t, secrets[0], (&onCall{harness: h}).ok("deadletters", "show", "--body", letters[2].ID), "on demand only")

	// With an id that is not there nothing at all is done.
	for _, command := range [][]string{{"show"}, {"replay", letters[0].ID}, {"drop", "--yes", letters[0].ID}} {
		require.Contains(t, o.fails(append(append([]string{"deadletters"}, command...), "no-such-id")...), "no dead letter no-such-id;")
	}
	require.Len(t, o.letters(), 3)

	// Replayed before the cause is cured, it comes back under another id.
	o.ok("deadletters", "replay", letters[0].ID)
	h.eventually(func() bool { return len(o.letters()) == 3 && o.letters()[2].ID != letters[2].ID }, "the message does not fail again")
	again := o.letters()[2]
	require.NotEqual(t, letters[0].ID, again.ID)
	require.True(t, again.StoredAt.Equal(letters[0].StoredAt), "it first came then")
	require.Empty(t, h.eventsOf("", "plain"))

	// What JetStream did not take stays a dead letter.
	w.stop()
	require.NoError(t, h.js.DeleteStream(h.ctx, h.subjects.IntegrationStream()))
	require.Contains(t, o.fails("deadletters", "replay", again.ID), "replaying dead letter "+again.ID)
	require.Len(t, o.letters(), 3)

	h.worker()
	require.Contains(t, o.ok("deadletters", "list", "--user", "plain"), again.ID)
	require.NotContains(t, o.ok("deadletters", "list", "--user", "plain"), letters[1].ID)
	out := o.ok("deadletters", "replay", "--reason", "MAX_bytes", "--yes")
	require.Equal(t, fmt.Sprintf("replayed %s (integration.connected)\nreplayed %s (integration.connected)\n", letters[1].ID, again.ID), out)
	// Lives count from the first arrival, over two replays, or from what the publisher said. The simulator states
	// whole seconds, rounded down.
	end := *h.event(events.TokenStored, "plain").Data.ExpiresAt
	require.WithinRange(t, end, before.Add(life-time.Second), after.Add(life))
	require.Zero(t, end.Sub(store.Milli(letters[0].StoredAt))%time.Second)
	require.WithinRange(t, *h.event(events.TokenStored, "enveloped").Data.ExpiresAt, stated.Add(life-time.Second), stated.Add(life))
	require.Len(t, h.get(events.TokenRequest{UserID: "plain"}).AccessTokens, 1)

	require.Equal(t, letters[2].ID, o.letters()[0].ID)
	o.ok("deadletters", "drop", "--yes", letters[2].ID)
	require.Empty(t, o.letters())
	require.Contains(t, o.fails("deadletters", "drop", "--yes", letters[2].ID), "no dead letter "+letters[2].ID)

	requireNoSecret(t, slices.Values(secrets), map[string]string{"command line": o.shown.String()})
}

func TestForgedDeadLettersAreNotReplayed(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	o := &onCall{harness: h}
	h.worker()
	token := h.issue("coinbase", "a").Accounts[0].AccessToken.Reveal()
	h.publish(h.subjects.Connected(), token)
	var letter handlers.DeadLetter
	require.NoError(t, json.Unmarshal(h.deadLetters(1)[0], &letter))
	listener, err := h.nc.SubscribeSync("listener")
	require.NoError(t, err)
	forge := func(change func(*handlers.DeadLetter)) {
		forged := letter
		change(&forged)
		body, err := json.Marshal(forged)
		require.NoError(t, err)
		h.publish(h.subjects.DeadLetter(events.UnknownTag, "forged"), string(body))
	}
	forge(func(d *handlers.DeadLetter) { d.ID = "another-id" })
	h.publish(h.subjects.DeadLetter(events.UnknownTag, "forged"), "\x1b[2J")
	require.Contains(t, o.fails("deadletters", "replay", "another-id"), "does not open")

	unreadable := o.letters()[2]
	require.Contains(t, o.fails("deadletters", "replay", unreadable.ID), handlers.ErrOrigin.Error())
	o.ok("deadletters", "drop", "--yes", unreadable.ID, letter.ID, "another-id")
	forge(func(d *handlers.DeadLetter) { d.Subject = "listener" })
	require.Contains(t, o.fails("deadletters", "replay", letter.ID), handlers.ErrOrigin.Error())
	require.Len(t, o.letters(), 1, "what can't be replayed stays")
	require.NoError(t, h.nc.Flush())
	pending, _, err := listener.Pending()
	require.NoError(t, err)
	require.Zero(t, pending)
	require.NotContains(t, o.shown.String(), token)
	require.NotContains(t, o.shown.String(), "\x1b")
}

func TestDeadLettersAndGrantsShowNoToken(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	o := &onCall{harness: h}
	h.worker()
	c := h.issueSpec(meshsim.ConnectSpec{BrokerType: "coinbase", Accounts: []meshsim.Account{{ID: "a", Name: "Main\x1b[2J"}}})
	h.publishConnected("u", c, time.Time{})
	stored := h.event(events.TokenStored, "u").Data

	var listed []map[string]any
	require.NoError(t, json.Unmarshal([]byte(o.ok("grants", "list", "--user", "u", "-o", "json")), &listed))
	require.Len(t, listed, 1)
	var shown map[string]any
	require.NoError(t, json.Unmarshal([]byte(o.ok("grants", "show", stored.GrantID, "-o", "json")), &shown))
	require.Equal(t, listed[0]["id"], shown["id"])
	require.Equal(t, stored.GrantID, shown["id"])
	require.Equal(t, "u", shown["user"])
	require.Equal(t, "active", shown["state"])
	require.EqualValues(t, 1, shown["version"])
	require.EqualValues(t, 0, shown["tries"])
	require.Equal(t, stored.ExpiresAt.Format(time.RFC3339Nano), shown["accessToken"].(map[string]any)["expiresAt"])
	require.Equal(t, "refresh", shown["due"].(map[string]any)["action"])
	require.NotContains(t, shown, "sealed")

	require.Regexp(t, stored.GrantID+` +u +coinbase +active +\d+[smhd] +-\n$`, o.ok("grants", "list", "-u", "u"))
	require.Regexp(t, stored.GrantID+` +u +coinbase +active .* - +1 .* refresh +0 +- +a +-\n$`, o.ok("grants", "list", "-u", "u", "--columns", "all"))
	page := o.ok("grants", "show", stored.GrantID)
	require.Regexp(t, `access token ends +`+stored.ExpiresAt.Format(time.RFC3339), page)
	require.Regexp(t, `account +a \(Main\x{FFFD}\[2J\), ends `, page)
	require.NotContains(t, page, "\x1b")
	require.Contains(t, o.ok("grants", "list", "--user", "u", "--broker", "CoinBase"), stored.GrantID)
	require.NotContains(t, o.ok("grants", "list", "--user", "u", "--broker", "kraken"), stored.GrantID)
	require.NotContains(t, o.ok("grants", "list", "--user", "nobody"), "coinbase")
	require.Equal(t, "[]\n", o.ok("grants", "list", "--user", "nobody", "-o", "json"))
	require.Contains(t, o.fails("grants", "show", "none"), "no grant none")

	sealed := h.grants("u")[0].Sealed.Data
	require.NotEmpty(t, sealed)
	secrets := []string{c.Accounts[0].AccessToken.Reveal(), c.Accounts[0].RefreshToken.Reveal(), string(sealed)}
	requireNoSecret(t, slices.Values(secrets), map[string]string{"command line": o.shown.String()})
}
