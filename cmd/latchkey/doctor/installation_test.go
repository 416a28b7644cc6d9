package doctor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/cli"
	"github.com/latchkey/latchkey/cmd/latchkey/doctor"
	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/cmd/latchkey/worker/workertest"
	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
)

// patience bounds every wait, which ends as soon as what it waits for is there.
const patience = 60 * time.Second

// installation is what a doctor looks at.
type installation struct {
	t        *testing.T
	ctx      context.Context
	stack    *stack.Stack
	subjects events.Subjects
	database string
	nc       *nats.Conn
	js       jetstream.JetStream
	shown    bytes.Buffer // by commands
}

// start starts the engines, without a worker. Outside servers are used where the environment
// names them.
func start(t *testing.T) *installation {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	h := &installation{t: t, ctx: ctx, database: enginestest.Name(t)}
	natsURL := os.Getenv(enginestest.NATSVariable)
	if natsURL != "" {
		h.subjects.Prefix = strings.ReplaceAll(h.database, "_", "-")
	}
	var err error
	h.stack, err = stack.Start(stack.Options{
		Dir: t.TempDir(), NATSURL: natsURL, MongoDBURI: os.Getenv(enginestest.MongoDBVariable),
		Institutions: map[string]meshsim.Institution{"coinbase": {AccessLifetime: time.Hour, RefreshLifetime: 24 * time.Hour}},
	})
	require.NoError(t, err)
	t.Cleanup(h.stack.Stop)
	h.nc, err = nats.Connect(h.config().NATS.URL)
	require.NoError(t, err)
	t.Cleanup(h.nc.Close)
	h.js, err = jetstream.New(h.nc)
	require.NoError(t, err)
	return h
}

func (h *installation) settings(more ...string) []string {
	return workertest.Settings(h.subjects.Prefix, h.database, more...)
}

func (h *installation) config(more ...string) config.Config {
	h.t.Helper()
	cfg, err := h.stack.Config(h.settings(more...)...)
	require.NoError(h.t, err)
	return cfg
}

func (h *installation) examine(more ...string) workertest.Findings {
	h.t.Helper()
	return h.examineAt(0, more...)
}

// examineAt has the doctor look by a clock that is ahead.
func (h *installation) examineAt(ahead time.Duration, more ...string) workertest.Findings {
	h.t.Helper()
	return workertest.Examine(h.ctx, h.t, h.config(more...), doctor.Options{Timeout: patience, Now: func() time.Time { return time.Now().Add(ahead) }})
}

// command runs a command line, expects its exit code, and returns its output.
func (h *installation) command(code int, args ...string) string {
	h.t.Helper()
	var stdout, stderr bytes.Buffer
	require.Equal(h.t, code, cli.Run(h.ctx, args, append(h.stack.Environ(), h.settings()...), &stdout, &stderr), stderr.String())
	if code == cli.ExitOK {
		require.NotContains(h.t, stderr.String(), "latchkey:")
	}
	h.shown.Write(stdout.Bytes())
	h.shown.Write(stderr.Bytes())
	return stdout.String()
}

func (h *installation) publish(subject, body string) {
	h.t.Helper()
	_, err := h.js.Publish(h.ctx, subject, []byte(body))
	require.NoError(h.t, err)
}

// connect has a user connect, and returns the grant once a worker has stored it.
func (h *installation) connect(user string) string {
	h.t.Helper()
	stored, err := h.nc.SubscribeSync(h.subjects.Lifecycle(events.TokenStored, user))
	require.NoError(h.t, err)
	c, err := h.stack.Mesh.Connect(meshsim.ConnectSpec{BrokerType: "coinbase", Accounts: []meshsim.Account{{ID: user, Name: user}}})
	require.NoError(h.t, err)
	h.publish(h.subjects.Connected(), fmt.Sprintf(`{"userId":%q,"payload":%s}`, user, c.Payload.Reveal()))
	msg, err := stored.NextMsg(patience)
	require.NoError(h.t, err)
	e, err := events.DecodeLifecycle(msg.Data)
	require.NoError(h.t, err)
	return e.Data.GrantID
}

func TestTheDoctorFindsNothingAndEverything(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for what can't be reached")
	}
	t.Parallel()
	h := start(t)

	// Before the first worker there is nothing, which is no failure.
	before := h.examine()
	before.Is(doctor.Warning, "nats streams", "no worker has run here")
	before.Is(doctor.Warning, "nats consumers", "start a worker")
	before.Is(doctor.Warning, "mongodb indexes", "grants(due.stream, due.at, _id)")
	before.AllBut("nats streams", "nats consumers", "mongodb indexes", "clock nats")

	w, err := workertest.Run(h.ctx, h.config(), worker.Options{Log: zap.NewNop()})
	require.NoError(t, err)
	defer func() { _ = w.Stop() }()
	require.NoError(t, h.stack.Ready(h.ctx))
	grant := h.connect("alice")
	well := h.examine()
	well.AllBut()
	well.Is(doctor.OK, "kms", "key arn:aws:kms:"+stack.Region)
	well.Is(doctor.OK, "kms data keys", "open")
	well.Is(doctor.OK, "mesh", "only a refresh proves it")
	for _, r := range h.stack.Mesh.Ledger().Requests {
		require.False(t, r.Reached, "the doctor's call reached an institution")
	}

	// At the command line, in both forms, without a secret.
	table := h.command(cli.ExitOK, "doctor")
	require.Regexp(t, `(?m)^configuration +ok +valid`, table)
	var listed []doctor.Result
	require.NoError(t, json.Unmarshal([]byte(h.command(cli.ExitOK, "doctor", "-o", "json")), &listed))
	require.Len(t, listed, len(well.ByCheck)+1)

	// Clocks.
	h.examineAt(7*time.Second, "LATCHKEY_WORKER_CLOCK_SKEW=10s").Is(doctor.Warning, "clock mongodb", "ahead of that of mongodb")
	late := h.examineAt(-time.Minute)
	for _, name := range []string{"nats", "mongodb", "kms", "mesh"} {
		late.Is(doctor.Failed, "clock "+name, "time synchronisation")
	}

	h.examineKMS()
	h.examineMesh()
	require.NoError(t, w.Stop())
	h.examineMongoDB(grant)
	h.examineStreams()
	h.examineConnections()
	require.NotContains(t, h.shown.String(), stack.ClientSecret)
	require.NotContains(t, h.shown.String(), stack.SecretAccessKey)
}

func (h *installation) examineKMS() {
	faults := h.stack.KMS.Faults()
	for _, c := range []struct {
		fault      kmssim.Fault
		operations []string
		check, do  string
	}{
		{kmssim.AccessDenied, []string{"GenerateDataKey"}, "kms", "kms:GenerateDataKey"},
		{kmssim.AccessDenied, []string{"Decrypt"}, "kms data keys", "does not open"},
		{kmssim.Disconnect, nil, "kms", "can't be reached"},
	} {
		faults.Always(c.fault, c.operations...)
		found := h.examine()
		found.Is(doctor.Failed, c.check, c.do)
		found.AllBut("kms", "kms data keys", "clock kms")
		faults.Clear()
	}
	h.examine("LATCHKEY_KMS_KEY_ID=alias/other").Is(doctor.Failed, "kms", "kms.key_id")

	// What takes too long is given up, and the rest is told.
	faults.Delay(patience, "GenerateDataKey")
	defer faults.Clear()
	cfg := h.config("LATCHKEY_KMS_TIMEOUT=1m", "LATCHKEY_REFRESH_LEASE=3m")
	for _, r := range doctor.Run(h.ctx, cfg, doctor.Options{Timeout: 3 * time.Second}) {
		require.Equal(h.t, r.Check == "kms", r.Status == doctor.Failed, "%+v", r)
	}
}

func (h *installation) examineMesh() {
	h.examine("LATCHKEY_MESH_CLIENT_SECRET=wrong").Is(doctor.Failed, "mesh", "Mesh refuses the credentials")
}

func (h *installation) examineMongoDB(grant string) {
	client, err := mongo.Connect(options.Client().ApplyURI(h.config().MongoDB.URI.Reveal()))
	require.NoError(h.t, err)
	defer func() { _ = client.Disconnect(h.ctx) }()
	grants := client.Database(h.database).Collection("grants")
	require.NoError(h.t, grants.Indexes().DropOne(h.ctx, "due.at_1__id_1"))
	found := h.examine()
	found.Is(doctor.Failed, "mongodb indexes", "missing: grants(due.at, _id)")
	found.AllBut("mongodb indexes")

	_, err = grants.UpdateByID(h.ctx, grant, bson.D{{Key: "$set", Value: bson.D{{Key: "due.at", Value: time.Now().Add(-time.Hour).UTC()}}}})
	require.NoError(h.t, err)
	h.examine().Is(doctor.Warning, "overdue grants", "1 grants are overdue")

	if h.stack.MongoDB != nil {
		h.stack.MongoDB.Proxy().FailWrites(91, func(command, _ string) bool { return command == "delete" })
		h.examine().Is(doctor.Failed, "mongodb writes", "majority")
		h.stack.MongoDB.Proxy().FailWrites(0, nil)
	}
}

func (h *installation) examineStreams() {
	archive := jetstream.StreamConfig{Name: strings.ToUpper(h.subjects.Prefix) + "ARCHIVE", Subjects: []string{"_INBOX_" + h.subjects.Prefix + "archived.>"}}
	_, err := h.js.CreateStream(h.ctx, archive)
	require.NoError(h.t, err)
	h.examine().Is(doctor.Failed, "nats inboxes", archive.Subjects[0])
	require.NoError(h.t, h.js.DeleteStream(h.ctx, archive.Name))

	h.publish(h.subjects.Recovery("some-grant"), "{}")
	h.publish(h.subjects.DeadLetter(events.UnknownTag, "recovery"), "{}")
	found := h.examine()
	found.Is(doctor.Warning, "answers to recover", "1 answers")
	found.Is(doctor.Warning, "dead letters", "latchkey deadletters list")

	h.examine("LATCHKEY_MESSAGES_ACK_WAIT=77s").Is(doctor.Warning, "nats consumers", "(ack_wait is 30s, not 1m17s)")
	require.NoError(h.t, h.js.DeleteConsumer(h.ctx, h.subjects.RefreshStream(), "latchkey-"+dashed(h.subjects.RefreshUrgent())))
	h.examine().Is(doctor.Failed, "nats consumers", "missing: latchkey-"+dashed(h.subjects.RefreshUrgent()))

	h.examine("LATCHKEY_RETENTION_EVENTS=1h").Is(doctor.Warning, "nats streams", h.subjects.LifecycleStream()+" (max_age is 168h0m0s, not 1h0m0s)")
	require.NoError(h.t, h.js.DeleteStream(h.ctx, h.subjects.AuditStream()))
	h.examine().Is(doctor.Failed, "nats streams", "missing: "+h.subjects.AuditStream())
	h.examine("LATCHKEY_NATS_PARTITIONS=2").Is(doctor.Failed, "nats streams", h.subjects.AuditStream()+", "+h.subjects.AuditStream()+"_1")
	require.NotContains(h.t, h.examine("LATCHKEY_AUDIT_MODE=off").ByCheck["nats streams"].Detail, "missing")

	for _, name := range []string{h.subjects.IntegrationStream(), h.subjects.RefreshStream(), h.subjects.RecoveryStream(), h.subjects.LifecycleStream(), h.subjects.DeadLetterStream(), h.subjects.CanaryStream()} {
		stream, err := h.js.Stream(h.ctx, name)
		require.NoError(h.t, err)
		want := uint64(0)
		switch name {
		case h.subjects.RecoveryStream(), h.subjects.DeadLetterStream():
			want = 1
		case h.subjects.RefreshStream(), h.subjects.LifecycleStream():
			want = stream.CachedInfo().State.Msgs
		}
		require.Equal(h.t, want, stream.CachedInfo().State.Msgs, "the doctor left something in %s", name)
		require.NoError(h.t, h.js.DeleteStream(h.ctx, name))
	}
	h.examine().Is(doctor.Failed, "nats streams", "MongoDB remembers")
}

func dashed(subject string) string { return strings.ReplaceAll(subject, ".", "-") }

func (h *installation) examineConnections() {
	nowhere := h.examine("LATCHKEY_NATS_URL=nats://127.0.0.1:1")
	nowhere.Is(doctor.Failed, "nats", "nats.url")
	nowhere.Is(doctor.Failed, "nats streams", "not checked")
	nowhere.Is(doctor.OK, "kms", "key arn")
	nowhere.Is(doctor.OK, "mongodb writes", "majority")

	if os.Getenv(enginestest.NATSVariable) == "" {
		plain, err := engines.StartNATS(engines.NATSOptions{Dir: h.t.TempDir(), Configure: func(o *server.Options) {
			narrow := server.NewAccount("narrow")
			off := server.NewAccount("off")
			o.Accounts = []*server.Account{narrow, off}
			o.Users = []*server.User{
				{Username: "off", Password: "password-of-off", Account: off},
				{Username: "narrow", Password: "password-of-narrow", Permissions: &server.Permissions{
					Publish:   &server.SubjectPermission{Allow: []string{"$JS.API.>", "refresh.schedule.*", "latchkey.recovery.*", "latchkey.recovery.*.part", "latchkey.deadletter.>", "latchkey.audit.1.*"}},
					Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
				}},
			}
		}})
		require.NoError(h.t, err)
		defer plain.Stop()
		found := h.examine("LATCHKEY_NATS_URL="+plain.URL(), "LATCHKEY_NATS_USERNAME=narrow", "LATCHKEY_NATS_PASSWORD=password-of-narrow", "LATCHKEY_NATS_PARTITIONS=3")
		found.Is(doctor.Failed, "nats permissions", "publish latchkey.audit.")
		found.Is(doctor.Failed, "nats permissions", "publish latchkey.changed.")
		found.Is(doctor.Failed, "nats permissions", "publish latchkey.audit.2.")
		require.NotContains(h.t, found.ByCheck["nats permissions"].Detail, "latchkey.audit.1.")
		found.Is(doctor.Failed, "nats permissions", "subscribe token.get.")
		found.Is(doctor.Failed, "nats permissions", "subscribe latchkey.changed.")
		require.NotContains(h.t, found.ByCheck["nats permissions"].Detail, "latchkey.recovery")
		found = h.examine("LATCHKEY_NATS_URL="+plain.URL(), "LATCHKEY_NATS_USERNAME=off", "LATCHKEY_NATS_PASSWORD=password-of-off")
		found.Is(doctor.Failed, "nats jetstream", "JetStream is off")
		found.Is(doctor.OK, "nats", "server")
	}

	if h.stack.MongoDB != nil {
		h.stack.MongoDB.Stop()
		gone := h.examine("LATCHKEY_MONGODB_TIMEOUT=1s")
		gone.Is(doctor.Failed, "mongodb", "mongodb.uri")
		gone.Is(doctor.Failed, "overdue grants", "not checked")
		gone.Is(doctor.OK, "mesh", "HTTP")
	}
	h.command(cli.ExitFailed, "doctor", "--timeout", "5s")
	require.Contains(h.t, h.shown.String(), "checks failed")
	require.Contains(h.t, h.shown.String(), "mongodb indexes")
	require.Contains(h.t, h.command(cli.ExitUsage, "doctor", "-c", "/nonexistent.yaml", "-o", "json"), `"check": "configuration"`)
}
