package worker_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/cli"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/handlers"
)

func TestCallersInOneAccount(t *testing.T) {
	t.Parallel()
	c := startCallers(t, filepath.Join(deployNATS, "nkeys.conf"), nkeyProof(t))
	c.everybodyDoesWhatTheyMay()
	c.nobodyDoesWhatTheyMayNot()
	c.strangersGetNowhere()
	c.everyCommandUnderEveryRole()
}

func TestCallersInAccountsOfTheirOwn(t *testing.T) {
	t.Parallel()
	c := startCallers(t, filepath.Join(deployNATS, "accounts.conf"), nkeyProof(t))
	c.observerAPI, c.observerRole = "JS.LATCHKEY.API", "observer-imported"
	c.everybodyDoesWhatTheyMay()
	c.nobodyDoesWhatTheyMayNot()
	c.strangersGetNowhere()

	// The worker learns who asks.
	eavesdropper := c.as("worker")
	heard, err := eavesdropper.SubscribeSync("token.get.*")
	require.NoError(t, err)
	require.NoError(t, eavesdropper.Flush())
	c.as("reader").asked("alice")
	msg, err := heard.NextMsg(patience)
	require.NoError(t, err)
	var who struct{ Acc, User string }
	require.NoError(t, json.Unmarshal([]byte(msg.Header.Get("Nats-Request-Info")), &who))
	require.Equal(t, "READER", who.Acc)
	pair, err := nkeys.FromSeed([]byte(strings.TrimPrefix(c.proofs["reader"][0], "LATCHKEY_NATS_NKEY_SEED=")))
	require.NoError(t, err)
	public, err := pair.PublicKey()
	require.NoError(t, err)
	require.Equal(t, public, who.User)

	// JetStream answers whatever reply subject a publisher names, within its account.
	publisher := c.as("publisher")
	require.NoError(t, publisher.PublishRequest("integration.connected", "latchkey.audit.forged", []byte("junk")))
	_, err = publisher.Request("integration.connected", []byte("junk"), patience) // answered after that
	require.NoError(t, err)
	require.Contains(t, c.operator("audit", "verify"), ": 0 faults")
}

// everybodyDoesWhatTheyMay has a worker do everything that it does, with its own
// permissions, for callers with theirs.
func (c *callers) everybodyDoesWhatTheyMay() {
	t := c.t
	w := c.worker(append(c.settingsOf("worker"), "LATCHKEY_ADMIN_LISTEN=127.0.0.1:0")...)
	require.NoError(t, c.stack.Ready(c.ctx))
	page := c.reader()
	publisher, reader, observer := c.as("publisher"), c.as("reader"), c.as("observer")
	c.nc, c.js = publisher.Conn, publisher.js
	for _, kind := range events.LifecycleKinds {
		_, err := observer.Subscribe(c.subjects.LifecycleAll(kind), c.observe)
		require.NoError(t, err)
	}
	require.NoError(t, observer.Flush())

	// Connects, refreshes by schedule, a lost answer in the urgent lane.
	c.connectAged("alice", due, spec("coinbase"), "a")
	c.connectAged("bob.1", due, spec("graceful"), "b", meshsim.Drop())
	c.connectAged("carol", fresh, spec("coinbase"), "c")
	for _, user := range []string{"alice", "bob.1"} {
		c.event(events.TokenRefreshed, user)
		require.Len(t, reader.asked(user).AccessTokens, 1)
	}
	require.Len(t, c.requests("b"), 2)

	// An answer that the database does not take lies in the recovery stream.
	if c.stack.MongoDB != nil {
		c.stack.MongoDB.Proxy().FailWrites(91, func(command, collection string) bool { return command == "update" && collection == "grants" })
		c.connectAged("dora", due, spec("coinbase"), "d")
		c.eventually(func() bool { return w.metric("latchkey_answers_rescued_total") > 0 }, "no answer is rescued")
		c.stack.MongoDB.Proxy().FailWrites(0, nil)
		c.event(events.TokenRefreshed, "dora")
		c.eventually(func() bool { return w.metric("latchkey_answers_recovered_total") > 0 }, "no answer is recovered")
	}

	// Disconnects cancel schedules.
	c.disconnect("carol", "", "")
	c.event(events.TokenRevoked, "carol")

	// The observer's consumer keeps its place.
	js, err := jetstream.NewWithAPIPrefix(observer.Conn, c.observerAPI)
	require.NoError(t, err)
	consumer, err := js.CreateOrUpdateConsumer(c.ctx, "LATCHKEY_LIFECYCLE", jetstream.ConsumerConfig{
		Durable: "observer", AckPolicy: jetstream.AckExplicitPolicy, FilterSubjects: []string{"token.revoked.*", "token.expired.*"},
	})
	require.NoError(t, err)
	batch, err := consumer.Fetch(1, jetstream.FetchMaxWait(patience))
	require.NoError(t, err)
	told := 0
	for msg := range batch.Messages() {
		told++
		require.Equal(t, "token.revoked.carol", msg.Subject())
		require.NoError(t, msg.DoubleAck(c.ctx))
	}
	require.Equal(t, 1, told)

	// Dead letters, at the operator's command line.
	c.publish("integration.connected", `{"userId":"mallory"}`)
	var letters []handlers.DeadLetter
	c.eventually(func() bool {
		require.NoError(t, json.Unmarshal([]byte(c.operator("deadletters", "list", "-o", "json")), &letters))
		return len(letters) == 1
	}, "no dead letter")
	require.Contains(t, c.operator("deadletters", "show", letters[0].ID), "payload")
	c.operator("deadletters", "replay", letters[0].ID)
	first := letters[0].ID
	c.eventually(func() bool {
		require.NoError(t, json.Unmarshal([]byte(c.operator("deadletters", "list", "-o", "json")), &letters))
		return len(letters) == 1 && letters[0].ID != first
	}, "the replayed message does not fail again")
	c.pageReplays(page)
	c.pageDoesTheRest(page)
	require.NoError(t, json.Unmarshal([]byte(c.operator("deadletters", "list", "-o", "json")), &letters))
	c.operator("deadletters", "drop", "--yes", letters[0].ID)
	require.Contains(t, c.operator("token", "get", "alice"), "****")
	c.operator("events", "tail", "--since", "1h", "--follow=false")
	c.operator("keys", "status", "--keys")
	c.operator("audit", "list")
	c.operator("audit", "verify")
	c.connectAged("frank", fresh, spec("coinbase"), "f")
	c.event(events.TokenStored, "frank")
	require.Contains(t, c.operator("users", "erase", "frank", "--yes", "--events"), "grants erased")
	c.doctorLooks()

	// A second worker brings streams and consumers up to its configuration.
	second := c.worker(append(c.settingsOf("worker"), "LATCHKEY_RETENTION_EVENTS=48h")...)
	w.stop()
	c.connectAged("erin", due, spec("coinbase"), "e")
	c.event(events.TokenRefreshed, "erin")
	second.stop()
	for _, who := range []*caller{publisher, reader, observer} {
		select {
		case err := <-who.refused:
			t.Fatalf("%s: %v", who.Opts.Name, err)
		default:
		}
	}
	require.NotContains(t, strings.ToLower(c.logs.String()), "permissions violation")
	c.worker(c.settingsOf("worker")...)
}

// pageReplays replays the only dead letter, which fails again, at the operator's page.
func (c *callers) pageReplays(page *reader) {
	c.t.Helper()
	first := page.letters("").Letters
	require.Len(c.t, first, 1)
	status, body := page.post(fmt.Sprintf("/api/dead-letters/%d/replay", first[0].Sequence), fmt.Sprintf(`{"id":%q}`, first[0].ID))
	require.Equal(c.t, http.StatusOK, status, body)
	c.eventually(func() bool {
		now := page.letters("").Letters
		return len(now) == 1 && now[0].ID != first[0].ID
	}, "the message that the page replays does not fail again")
}

// pageDoesTheRest does once what the page offers beside the replay of one dead letter; there is one
// before and after.
func (c *callers) pageDoesTheRest(page *reader) {
	c.t.Helper()
	posted := func(path, body string) {
		c.t.Helper()
		status, answer := page.post(path, body)
		require.Equal(c.t, http.StatusOK, status, answer)
		require.NotContains(c.t, answer, "failed")
	}
	id := c.event(events.TokenRefreshed, "alice").Data.GrantID
	posted("/api/verdicts", `{"broker":"unused","decision":"hold"}`)
	posted("/api/verdicts", `{"broker":"unused","decision":"release"}`)
	posted("/api/grants/"+id+"/refresh", "{}")
	for _, path := range []string{"/api/grants", "/api/grants?user=alice", "/api/grants/" + id, "/api/grants/" + id + "/history"} {
		status, answer := page.get(path)
		require.Equal(c.t, http.StatusOK, status, answer)
	}
	first := page.letters("").Letters[0].ID
	posted("/api/dead-letters/replay", `{"through":99999}`)
	c.eventually(func() bool {
		now := page.letters("").Letters
		return len(now) == 1 && now[0].ID != first
	}, "the messages that the page replays do not fail again")
	for n := range 2 {
		c.publish("integration.connected", `{"userId":"trudy"}`)
		c.eventually(func() bool { return len(page.letters("").Letters) == 2 }, "no dead letter")
		if n == 0 {
			posted("/api/dead-letters/drop", `{"user":"trudy","through":99999}`)
			continue
		}
		l := page.letters("?user=trudy").Letters[0]
		posted(fmt.Sprintf("/api/dead-letters/%d/drop", l.Sequence), fmt.Sprintf(`{"id":%q}`, l.ID))
	}
	c.eventually(func() bool {
		return !slices.Contains(kinds(page.overview()), "unknown") && len(page.overview().Workers.Value) == 1
	}, "the page can't read everything")
}

// operator runs a command line that must succeed.
func (c *callers) operator(args ...string) string {
	c.t.Helper()
	var stdout, stderr bytes.Buffer
	code := cli.Run(c.ctx, args, append(c.stack.Environ(), c.settings(c.settingsOf("operator")...)...), &stdout, &stderr)
	require.Equal(c.t, cli.ExitOK, code, "%v: %s", args, stderr.String())
	return stdout.String()
}

// What somebody might like to publish or listen to, and all but some may not.
var (
	temptingToPublish = []string{
		"integration.connected", "integration.disconnected", "token.keys", "token.get.alice", "token.get.bob%2E1", "token.get.carol", "token.get.Alice",
		"token.get", "token.get.alice.x", "token.mfa.alice", "token.mfa.carol", "token.stored.alice", "token.expired.alice", "token.revoked.alice",
		"refresh.due", "refresh.urgent", "refresh.schedule.g", "latchkey.recovery.g", "latchkey.deadletter.x", "latchkey.audit.x", "latchkey.lifecycle.0.token.stored.alice", "latchkey.canary",
		"$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST",
		"$JS.API.STREAM.INFO.LATCHKEY_INTEGRATION", "$JS.API.STREAM.MSG.GET.LATCHKEY_INTEGRATION", "$JS.API.DIRECT.GET.LATCHKEY_INTEGRATION",
		"$JS.API.DIRECT.GET.LATCHKEY_INTEGRATION.integration.connected", "$JS.API.STREAM.SNAPSHOT.LATCHKEY_INTEGRATION",
		"$JS.API.CONSUMER.CREATE.LATCHKEY_INTEGRATION", "$JS.API.CONSUMER.CREATE.LATCHKEY_INTEGRATION.mine", "$JS.API.CONSUMER.DURABLE.CREATE.LATCHKEY_INTEGRATION.mine",
		"$JS.API.CONSUMER.MSG.NEXT.LATCHKEY_INTEGRATION.latchkey-integration-connected", "$JS.API.CONSUMER.LIST.LATCHKEY_INTEGRATION",
		"$JS.API.CONSUMER.DELETE.LATCHKEY_INTEGRATION.latchkey-integration-connected", "$JS.ACK.LATCHKEY_INTEGRATION.latchkey-integration-connected.1.1.1.1.1",
		"$JS.API.STREAM.CREATE.MINE", "$JS.API.STREAM.UPDATE.LATCHKEY_INTEGRATION", "$JS.API.STREAM.DELETE.LATCHKEY_INTEGRATION", "$JS.API.STREAM.PURGE.LATCHKEY_INTEGRATION",
		"$JS.API.STREAM.MSG.GET.LATCHKEY_RECOVERY", "$JS.API.STREAM.MSG.GET.LATCHKEY_DEADLETTER", "$JS.API.STREAM.MSG.GET.LATCHKEY_LIFECYCLE",
		"$JS.API.STREAM.DELETE.LATCHKEY_REFRESH", "$JS.API.STREAM.MSG.DELETE.LATCHKEY_AUDIT", "$JS.API.STREAM.PURGE.LATCHKEY_AUDIT", "$JS.API.STREAM.DELETE.LATCHKEY_AUDIT",
		"$JS.API.CONSUMER.CREATE.LATCHKEY_LIFECYCLE.other", "$JS.API.CONSUMER.DELETE.LATCHKEY_LIFECYCLE.observer", "$JS.API.CONSUMER.CREATE.LATCHKEY_REFRESH.mine",
		"$JS.API.CONSUMER.CREATE.LATCHKEY_LIFECYCLE", "$JS.API.CONSUMER.PAUSE.LATCHKEY_LIFECYCLE.observer", "$JS.API.CONSUMER.MSG.NEXT.LATCHKEY_LIFECYCLE.other", "$JS.API.CONSUMER.DELETE.LATCHKEY_AUDIT.archive",
		"$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.LATCHKEY.CONNZ", "$SRV.PING", "_INBOX.x", "_INBOX_latchkey.x", "_INBOX_publisher.x", "_INBOX_reader.x", "_INBOX_observer.x",
		"_INBOX_operator.x", "other",
	}
	temptingToHear = []string{
		">", "*", "*.*", "*.*.*", "token.>", "token.*.*", "token.get.>", "token.get.*", "token.get.alice", "token.get.carol", "token.mfa.*", "token.mfa.alice", "token.keys", "token.stored.*",
		"integration.>", "integration.*", "integration.connected", "integration.disconnected", "refresh.>", "refresh.due", "latchkey.>", "latchkey.audit.>",
		"$JS.>", "$JS.API.>", "$JS.ACK.>", "$SYS.>", "$SRV.>", "$SRV.PING", "_INBOX.>", "_INBOX_latchkey.>", "_INBOX_publisher.>", "_INBOX_reader.>", "_INBOX_observer.>",
		"_INBOX_operator.>", "_INBOX_*.>", "_R_.>", "*.>", "other",
	}
)

// nobodyDoesWhatTheyMayNot tries everything that a role's file does not permit.
func (c *callers) nobodyDoesWhatTheyMayNot() {
	for _, role := range roles {
		who, may := c.as(role), c.permissionsOf(role)
		publish, subscribe := outside(temptingToPublish, may.Publish), outside(temptingToHear, may.Subscribe)
		require.Greater(c.t, len(publish), len(temptingToPublish)/3, role)
		require.Greater(c.t, len(subscribe), len(temptingToHear)/2, role)
		who.mayNot(publish, subscribe)
	}
	// The files permit what each is there for and no more: what decides here
	// must not depend on those files alone.
	only := map[string][]string{
		"publisher": {"integration.connected", "integration.disconnected", "token.keys"},
		"reader":    {"token.get.alice", "token.get.bob%2E1", "token.mfa.alice"},
		"observer":  {},
		"operator": {
			"integration.connected", "integration.disconnected", "refresh.due", "refresh.urgent", "refresh.schedule.g", "latchkey.recovery.g", "token.get.alice",
			"token.get.bob%2E1", "token.get.carol", "token.get.Alice", "latchkey.audit.x", "$JS.API.STREAM.NAMES",
			"$JS.API.STREAM.MSG.GET.LATCHKEY_RECOVERY", "$JS.API.STREAM.MSG.GET.LATCHKEY_DEADLETTER",
		},
	}
	for role, wanted := range only {
		may := slices.DeleteFunc(slices.Clone(temptingToPublish), func(s string) bool {
			return slices.Contains(outside(temptingToPublish, c.permissionsOf(role).Publish), s)
		})
		require.ElementsMatch(c.t, wanted, may, role)
	}
	for _, subject := range []string{"$JS.API.CONSUMER.CREATE.LATCHKEY_LIFECYCLE.other", "$JS.API.CONSUMER.DELETE.LATCHKEY_LIFECYCLE.observer", "token.get.alice", "_INBOX.x", "_INBOX_observer.x", "$JS.API.STREAM.DELETE.LATCHKEY_INTEGRATION", "$JS.API.STREAM.PURGE.LATCHKEY_AUDIT", "$SYS.REQ.SERVER.PING", "other"} {
		require.Contains(c.t, outside(temptingToPublish, c.permissionsOf("worker").Publish), subject)
	}
	for _, subject := range []string{">", "integration.connected", "_INBOX_reader.>", "$JS.>"} {
		require.Contains(c.t, outside(temptingToHear, c.permissionsOf("worker").Subscribe), subject)
	}

	// Carol's tokens are not had by the ways that look like others.
	reader := c.as("reader")
	for _, body := range []string{`{"userId":"carol"}`, `{"userId":"alice","userId":"carol"}`} {
		msg, err := reader.Request("token.get.alice", []byte(body), patience)
		require.NoError(c.t, err)
		require.NotEmpty(c.t, msg.Header.Get("Nats-Service-Error"), body)
	}
	c.answersGoToInboxesOnly(reader)
}

// answersGoToInboxesOnly has a reader name reply subjects that are not its own.
func (c *callers) answersGoToInboxesOnly(reader *caller) {
	t := c.t
	worker := c.as("worker") // with the rights of one
	heard := make(chan *nats.Msg, 1024)
	_, err := worker.ChanSubscribe("token.get.*", heard)
	require.NoError(t, err)
	require.NoError(t, worker.Flush())
	stored := func() map[string]uint64 {
		out := map[string]uint64{}
		for _, name := range []string{"INTEGRATION", "REFRESH", "RECOVERY", "LIFECYCLE", "DEADLETTER"} {
			stream, err := worker.js.Stream(c.ctx, "LATCHKEY_"+name)
			require.NoError(t, err)
			out[name] = stream.CachedInfo().State.LastSeq
		}
		return out
	}
	before := stored()
	elsewhere := outside(temptingToPublish, []string{"_INBOX_reader.>", "_INBOX_operator.>", "_INBOX_publisher.>", "_INBOX_latchkey.>"})
	elsewhere = slices.DeleteFunc(elsewhere, func(s string) bool { return strings.HasPrefix(s, "$JS.ACK.") }) // which servers refuse to the reader
	for _, reply := range elsewhere {
		require.NoError(t, reader.PublishRequest("token.get.alice", reply, []byte(`{"userId":"alice"}`)))
	}
	require.Len(t, reader.asked("alice").AccessTokens, 1)
	require.Equal(t, before, stored())
	require.Contains(t, c.operator("audit", "verify"), ": 0 faults")

	// Without the worker's own care the permissions would hold: what it does not
	// publish otherwise, it may not answer.
	may := c.permissionsOf("worker").Publish
	for _, reply := range elsewhere {
		var request *nats.Msg
		select {
		case request = <-heard:
		case <-time.After(patience):
			t.Fatal("the request is not heard")
		}
		if strings.HasPrefix(request.Reply, "_R_.") {
			break // from another account, where the answer would go
		}
		require.Equal(t, reply, request.Reply)
		if len(outside([]string{reply}, may)) == 1 {
			worker.refuses("Publish to", reply, func() error { return request.Respond(nil) })
		}
	}
}

// strangersGetNowhere connects with less than a role has.
func (c *callers) strangersGetNowhere() {
	t := c.t
	other := newAuthority(t)
	foreignCert, foreignKey := other.issue("foreign")
	stranger, err := nkeys.CreateUser()
	require.NoError(t, err)
	public, err := stranger.PublicKey()
	require.NoError(t, err)
	ca := nats.RootCAs(c.ca.ca())
	cert := nats.ClientCert(c.certs["reader"][0], c.certs["reader"][1])
	for name, o := range map[string][]nats.Option{
		"nothing":                            {},
		"no certificate":                     {ca, nats.Nkey(public, stranger.Sign)},
		"a certificate of somebody else's":   {ca, nats.ClientCert(foreignCert, foreignKey), nats.Nkey(public, stranger.Sign)},
		"a certificate alone":                {ca, cert},
		"a key that nobody knows":            {ca, cert, nats.Nkey(public, stranger.Sign)},
		"a password":                         {ca, cert, nats.UserInfo("worker", "worker")},
		"a token":                            {ca, cert, nats.Token("token")},
		"the server's certificate unchecked": {nats.RootCAs(other.ca()), cert},
	} {
		nc, err := nats.Connect(c.url, append(o, nats.MaxReconnects(0), nats.Timeout(10*time.Second))...)
		require.Error(t, err, name)
		require.Nil(t, nc, name)
	}
	_, err = nats.Connect(strings.Replace(c.url, "tls://", "nats://", 1), nats.MaxReconnects(0))
	require.Error(t, err, "without TLS")
	require.Error(t, func() error { // a worker is told why
		_, err := c.tryWorker(fmt.Sprintf("LATCHKEY_NATS_CA_FILE=%s", c.ca.ca()))
		return err
	}())
}
