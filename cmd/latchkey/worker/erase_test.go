package worker_test

import (
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	_ "modernc.org/sqlite"

	"github.com/latchkey/latchkey/cmd/latchkey/cli"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/sealing"
	"github.com/latchkey/latchkey/store/envelope"
)

// letterOf is a dead letter as it lies in the stream.
type letterOf struct {
	ID     string
	Sealed struct{ Data string }
}

func TestUsersErase(t *testing.T) {
	t.Parallel()
	h := startWith(t, stack.Options{NATSInTheClear: true})
	o := &onCall{harness: h}
	require.Contains(t, o.fails("users", "erase", "erase-me", "--yes"), "no stream")
	w := h.worker("LATCHKEY_CONNECT_MAX_BYTES=4096", "LATCHKEY_DATA_KEYS_PER_USER=true")

	// Two users to whom the same happens: stored twice, and dead letters.
	blobs := map[string][]string{}
	blob := func(user string) {
		t.Helper()
		for _, g := range h.grants(user) {
			blobs[user] = append(blobs[user], base64.StdEncoding.EncodeToString(g.Sealed.Data))
		}
	}
	grant := map[string]string{}
	parked := 0
	for _, user := range []string{"erase-me", "keep-me"} {
		h.connectAged(user, fresh, spec("coinbase"), user)
		grant[user] = h.event(events.TokenStored, user).Data.GrantID
		blob(user)
		h.get(h.refusing(events.TokenRequest{UserID: user}))
		h.event(events.TokenRefreshed, user)
		blob(user)
		big := h.issueSpec(meshsim.ConnectSpec{BrokerType: "kraken", LogoBytes: 8 << 10}, "k-"+user)
		for subject, body := range map[string]string{
			h.subjects.Connected():           fmt.Sprintf(`{"userId":%q,"payload":%s}`, user, big.Payload.Reveal()),
			h.subjects.Recovery(grant[user]): "no entry",
		} {
			h.publish(subject, body)
			var letter letterOf
			parked++
			require.NoError(t, json.Unmarshal(h.deadLetters(parked)[parked-1], &letter))
			blobs[user] = append(blobs[user], letter.Sealed.Data)
		}
	}
	h.publish(h.subjects.Connected(), `{"payload":{"user":"erase-me"}`)
	var suspect letterOf
	require.NoError(t, json.Unmarshal(h.deadLetters(5)[4], &suspect))

	require.Equal(t, cli.ExitUsage, first(o.run("users", "erase", "")))
	require.Equal(t, cli.ExitUsage, first(o.run("users", "erase", "erase-me")), "there is no terminal to ask at")
	var report struct {
		User                string
		Grants, DeadLetters int
		Events              bool
		Suspects            []string
	}
	require.NoError(t, json.Unmarshal([]byte(o.ok("users", "erase", "erase-me", "--yes", "--events", "--output", "json")), &report))
	require.Equal(t, 1, report.Grants)
	require.Equal(t, 2, report.DeadLetters, "the user's and the grant's")
	require.True(t, report.Events)
	require.Equal(t, []string{suspect.ID}, report.Suspects)
	require.Equal(t, events.ReasonDisconnected, h.event(events.TokenRevoked, "erase-me").Data.Reason)
	require.Empty(t, h.grants("erase-me"))
	require.False(t, h.scheduled(grant["erase-me"]))
	for user, retired := range map[string]bool{"erase-me": true, "keep-me": false} {
		var key envelope.WrappedKey
		require.NoError(t, h.mongo().Database(h.database).Collection("data_keys").FindOne(h.ctx, bson.D{{Key: "scope", Value: envelope.ScopeOf(user)}}).Decode(&key))
		require.Equal(t, retired, !key.SealsUntil.After(time.Now()), user)
	}
	require.Len(t, o.letters(), 3)
	o.ok("deadletters", "drop", "--yes", suspect.ID)
	table := o.ok("users", "erase", "nobody", "--yes")
	require.Contains(t, table, "nobody")
	require.Empty(t, h.eventsOf(events.TokenRevoked, "keep-me"))
	lifecycle := h.subjectsOf(h.subjects.LifecycleStream())
	require.Contains(t, lifecycle, h.subjects.Lifecycle(events.TokenRefreshed, "keep-me"))
	require.NotContains(t, lifecycle, h.subjects.Lifecycle(events.TokenRefreshed, "erase-me"))
	require.Contains(t, lifecycle, h.subjects.Lifecycle(events.TokenRevoked, "erase-me"))

	if h.stack.MongoDB == nil || h.stack.NATS == nil {
		return // their files are elsewhere
	}
	w.stop()
	h.stack.Stop()
	// SQLite keeps what was deleted in free pages until it is vacuumed; NATS
	// overwrites at once what it is told to erase.
	files, err := filepath.Glob(filepath.Join(h.dir, "mongodb", "*.sqlite"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		db, err := sql.Open("sqlite", file)
		require.NoError(t, err)
		for _, statement := range []string{"VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"} {
			_, err = db.Exec(statement)
			require.NoError(t, err)
		}
		require.NoError(t, db.Close())
	}
	require.Len(t, blobs["erase-me"], 4)
	raw := h.files("mongodb") + h.files("nats")
	for _, blob := range blobs["erase-me"] {
		require.NotContains(t, raw, blob)
	}
	for _, blob := range blobs["keep-me"][1:] { // the first was replaced
		require.Contains(t, raw, blob)
	}
}

func TestUsersEraseWaitsForAWorker(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	o := &onCall{harness: h}
	w := h.worker()
	h.connectAged("u", fresh, spec("coinbase"), "a")
	h.event(events.TokenStored, "u")
	w.stop()
	require.Contains(t, o.fails("users", "erase", "u", "--yes", "--timeout", "100ms"), "does a worker run?")
	require.Len(t, h.grants("u"), 1)
	h.worker()
	h.event(events.TokenRevoked, "u")
	h.eventually(func() bool { return len(h.grants("u")) == 0 }, "the stored request is carried out")
}

func TestADisconnectErasesTheDeadLettersThatItCovers(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	o := &onCall{harness: h}
	w := h.worker("LATCHKEY_CONNECT_MAX_BYTES=4096")
	var ids []string
	park := func(user, broker string, at time.Time, accounts ...string) {
		t.Helper()
		c := h.issueSpec(meshsim.ConnectSpec{BrokerType: broker, LogoBytes: 8 << 10}, accounts...)
		h.publishConnected(user, c, at)
		h.deadLetters(len(ids) + 1)
		letters := o.letters()
		ids = append(ids, letters[len(letters)-1].ID)
	}
	park("u", "coinbase", time.Time{}, "a", "b")
	park("u", "coinbase", time.Time{}, "c")
	park("u", "kraken", time.Time{}, "k")
	park("v", "coinbase", time.Time{}, "v")
	left := func(want ...int) {
		t.Helper()
		h.handled()
		var got, wanted []string
		for _, letter := range o.letters() {
			got = append(got, letter.ID)
		}
		for _, i := range want {
			wanted = append(wanted, ids[i])
		}
		require.Equal(t, wanted, got)
	}
	h.disconnect("u", "coinbase", "a")
	left(0, 1, 2, 3)
	h.disconnect("u", "", "c")
	left(0, 2, 3)
	h.disconnect("u", "coinbase", "")
	left(2, 3)
	h.disconnect("nobody", "", "")
	left(2, 3)
	past, err := json.Marshal(events.Disconnected{UserID: "u", Everything: true, DisconnectedAt: time.Now().Add(-time.Hour)})
	require.NoError(t, err)
	h.publish(h.subjects.Disconnected(), string(past))
	left(2, 3)
	// Whom a sealed connect concerns shows when it is opened.
	key, err := sealing.NewPublicKey(h.keys().Keys[0])
	require.NoError(t, err)
	sealed, err := key.Seal([]byte(`{"userId":"w","payload":{}}`))
	require.NoError(t, err)
	h.publish(h.subjects.Connected(), string(sealed))
	h.deadLetters(3)
	h.disconnect("w", "", "")
	left(2, 3)

	w.stop()
	_, err = h.mongo().Database(h.database).Collection("data_keys").DeleteMany(h.ctx, bson.D{})
	require.NoError(t, err)
	h.worker()
	h.disconnect("u", "kraken", "") // what does not open stays
	left(2, 3)
	h.disconnect("u", "", "")
	left(3)
}

func first(code int, _, _ string) int { return code }
