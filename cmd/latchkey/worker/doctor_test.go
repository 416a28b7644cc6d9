package worker_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey/latchkey/cmd/latchkey/cli"
	"github.com/latchkey/latchkey/cmd/latchkey/doctor"
	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/events"
)

// examine has the doctor look at the installation by a clock that is off.
func (h *harness) examine(offset time.Duration, more ...string) findings {
	h.t.Helper()
	return h.examineWithin(patience, offset, more...)
}

func (h *harness) examineWithin(timeout, offset time.Duration, more ...string) findings {
	h.t.Helper()
	cfg, err := h.stack.Config(h.settings(more...)...)
	require.NoError(h.t, err)
	all := doctor.Run(h.ctx, cfg, doctor.Options{Timeout: timeout, Now: func() time.Time { return time.Now().Add(offset) }})
	out := findings{h.t, map[string]doctor.Result{}}
	for _, r := range all {
		require.NotContains(h.t, out.byCheck, r.Check)
		require.NotEmpty(h.t, r.Detail, r.Check)
		require.Equal(h.t, r.Status == doctor.OK, r.Do == "", "%+v", r)
		out.byCheck[r.Check] = r
	}
	return out
}

// findings are a doctor's results by check.
type findings struct {
	t       *testing.T
	byCheck map[string]doctor.Result
}

// is expects a check's outcome, and something in what is told of it.
func (f findings) is(status doctor.Status, check, told string) {
	f.t.Helper()
	r := f.byCheck[check]
	require.Equal(f.t, status, r.Status, "%+v", r)
	require.Contains(f.t, r.Detail+"\n"+r.Do, told, check)
}

// allBut expects that all checks are well but for some.
func (f findings) allBut(checks ...string) {
	f.t.Helper()
	for name, r := range f.byCheck {
		if name == "mongodb" && r.Status == doctor.Warning {
			continue // the embedded database is no replica set
		}
		if r.Status != doctor.OK {
			require.Contains(f.t, checks, name, "%+v", r)
		}
	}
}

func TestTheDoctorFindsNothingAndEverything(t *testing.T) {
	t.Parallel()
	h := start(t, map[string]meshsim.Institution{"coinbase": {AccessLifetime: time.Hour, RefreshLifetime: life}})
	o := &onCall{harness: h}

	// Before the first worker there is nothing, which is no failure.
	before := h.examine(0)
	before.is(doctor.Warning, "nats streams", "no worker has run here")
	before.is(doctor.Warning, "nats consumers", "start a worker")
	before.is(doctor.Warning, "mongodb indexes", "grants(due.stream, due.at, _id)")
	before.allBut("nats streams", "nats consumers", "mongodb indexes", "clock nats")

	w := h.worker()
	grant := h.connectFor("alice")
	well := h.examine(0)
	well.allBut()
	well.is(doctor.OK, "kms", "key arn:aws:kms:"+stack.Region)
	well.is(doctor.OK, "kms data keys", "open")
	well.is(doctor.OK, "mesh", "only a refresh proves it")
	for _, r := range h.stack.Mesh.Ledger().Requests {
		require.False(t, r.Reached, "the doctor's call reached an institution")
	}

	// At the command line, in both forms, without a secret.
	table := o.ok("doctor")
	require.Regexp(t, `(?m)^configuration +ok +valid`, table)
	var listed []doctor.Result
	require.NoError(t, json.Unmarshal([]byte(o.ok("doctor", "-o", "json")), &listed))
	require.Len(t, listed, len(well.byCheck)+1)

	// Clocks.
	h.examine(7*time.Second, "LATCHKEY_WORKER_CLOCK_SKEW=10s").is(doctor.Warning, "clock mongodb", "ahead of that of mongodb")
	late := h.examine(-time.Minute)
	for _, name := range []string{"nats", "mongodb", "kms", "mesh"} {
		late.is(doctor.Failed, "clock "+name, "time synchronisation")
	}

	h.examineKMS()
	h.examineMesh()
	w.stop()
	h.examineMongoDB(grant)
	h.examineStreams()
	h.examineConnections()
	require.NotContains(t, o.shown.String(), stack.ClientSecret)
	require.NotContains(t, o.shown.String(), stack.SecretAccessKey)
}

// connectFor has a user connect, and returns the grant.
func (h *harness) connectFor(user string) string {
	h.t.Helper()
	h.publishConnected(user, h.issue("coinbase", user), time.Time{})
	return h.event(events.TokenStored, user).Data.GrantID
}

func (h *harness) examineKMS() {
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
		found := h.examine(0)
		found.is(doctor.Failed, c.check, c.do)
		found.allBut("kms", "kms data keys", "clock kms")
		faults.Clear()
	}
	h.examine(0, "LATCHKEY_KMS_KEY_ID=alias/other").is(doctor.Failed, "kms", "kms.key_id")

	// What takes too long is given up, and the rest is told.
	faults.Delay(patience, "GenerateDataKey")
	defer faults.Clear()
	cfg, err := h.stack.Config(h.settings("LATCHKEY_KMS_TIMEOUT=1m", "LATCHKEY_REFRESH_LEASE=3m")...)
	require.NoError(h.t, err)
	for _, r := range doctor.Run(h.ctx, cfg, doctor.Options{Timeout: 3 * time.Second}) {
		require.Equal(h.t, r.Check == "kms", r.Status == doctor.Failed, "%+v", r)
	}
}

func (h *harness) examineMesh() {
	h.examine(0, "LATCHKEY_MESH_CLIENT_SECRET=wrong").is(doctor.Failed, "mesh", "Mesh refuses the credentials")
}

func (h *harness) examineMongoDB(grant string) {
	db := h.mongo().Database(h.database)
	require.NoError(h.t, db.Collection("grants").Indexes().DropOne(h.ctx, "due.at_1__id_1"))
	found := h.examine(0)
	found.is(doctor.Failed, "mongodb indexes", "missing: grants(due.at, _id)")
	found.allBut("mongodb indexes")

	h.set(grant, bson.D{{Key: "due.at", Value: time.Now().Add(-time.Hour).UTC()}})
	h.examine(0).is(doctor.Warning, "overdue grants", "1 grants are overdue")

	if h.stack.MongoDB != nil {
		h.stack.MongoDB.Proxy().FailWrites(91, func(command, _ string) bool { return command == "delete" })
		h.examine(0).is(doctor.Failed, "mongodb writes", "majority")
		h.stack.MongoDB.Proxy().FailWrites(0, nil)
	}
}

func (h *harness) examineStreams() {
	archive := jetstream.StreamConfig{Name: strings.ToUpper(h.subjects.Prefix) + "ARCHIVE", Subjects: []string{"_INBOX_" + h.subjects.Prefix + "archived.>"}}
	_, err := h.js.CreateStream(h.ctx, archive)
	require.NoError(h.t, err)
	h.examine(0).is(doctor.Failed, "nats inboxes", archive.Subjects[0])
	require.NoError(h.t, h.js.DeleteStream(h.ctx, archive.Name))

	h.publish(h.subjects.Recovery("some-grant"), "{}")
	h.publish(h.subjects.DeadLetter(events.UnknownTag, "recovery"), "{}")
	found := h.examine(0)
	found.is(doctor.Warning, "answers to recover", "1 answers")
	found.is(doctor.Warning, "dead letters", "latchkey deadletters list")

	h.examine(0, "LATCHKEY_MESSAGES_ACK_WAIT=77s").is(doctor.Warning, "nats consumers", "(ack_wait is 30s, not 1m17s)")
	require.NoError(h.t, h.js.DeleteConsumer(h.ctx, h.subjects.RefreshStream(), "latchkey-"+dashed(h.subjects.RefreshUrgent())))
	h.examine(0).is(doctor.Failed, "nats consumers", "missing: latchkey-"+dashed(h.subjects.RefreshUrgent()))

	h.examine(0, "LATCHKEY_RETENTION_EVENTS=1h").is(doctor.Warning, "nats streams", h.subjects.LifecycleStream()+" (max_age is 168h0m0s, not 1h0m0s)")
	require.NoError(h.t, h.js.DeleteStream(h.ctx, h.subjects.AuditStream()))
	h.examine(0).is(doctor.Failed, "nats streams", "missing: "+h.subjects.AuditStream())
	require.NotContains(h.t, h.examine(0, "LATCHKEY_AUDIT_MODE=off").byCheck["nats streams"].Detail, "missing")

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
	h.examine(0).is(doctor.Failed, "nats streams", "MongoDB remembers")
}

func dashed(subject string) string { return strings.ReplaceAll(subject, ".", "-") }

func (h *harness) examineConnections() {
	nowhere := h.examine(0, "LATCHKEY_NATS_URL=nats://127.0.0.1:1")
	nowhere.is(doctor.Failed, "nats", "nats.url")
	nowhere.is(doctor.Failed, "nats streams", "not checked")
	nowhere.is(doctor.OK, "kms", "key arn")
	nowhere.is(doctor.OK, "mongodb writes", "majority")

	if os.Getenv(enginestest.NATSVariable) == "" {
		plain, err := engines.StartNATS(engines.NATSOptions{Dir: h.t.TempDir(), Configure: func(o *server.Options) {
			narrow := server.NewAccount("narrow")
			off := server.NewAccount("off")
			o.Accounts = []*server.Account{narrow, off}
			o.Users = []*server.User{
				{Username: "off", Password: "password-of-off", Account: off},
				{Username: "narrow", Password: "password-of-narrow", Permissions: &server.Permissions{
					Publish:   &server.SubjectPermission{Allow: []string{"$JS.API.>", "refresh.schedule.*", "latchkey.recovery.*", "latchkey.recovery.*.part", "latchkey.deadletter.>"}},
					Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
				}},
			}
		}})
		require.NoError(h.t, err)
		defer plain.Stop()
		found := h.examine(0, "LATCHKEY_NATS_URL="+plain.URL(), "LATCHKEY_NATS_USERNAME=narrow", "LATCHKEY_NATS_PASSWORD=password-of-narrow")
		found.is(doctor.Failed, "nats permissions", "publish latchkey.audit.")
		found.is(doctor.Failed, "nats permissions", "subscribe token.get.")
		require.NotContains(h.t, found.byCheck["nats permissions"].Detail, "latchkey.recovery")
		found = h.examine(0, "LATCHKEY_NATS_URL="+plain.URL(), "LATCHKEY_NATS_USERNAME=off", "LATCHKEY_NATS_PASSWORD=password-of-off")
		found.is(doctor.Failed, "nats jetstream", "JetStream is off")
		found.is(doctor.OK, "nats", "server")
	}

	if h.stack.MongoDB != nil {
		h.stack.MongoDB.Stop()
		gone := h.examine(0, "LATCHKEY_MONGODB_TIMEOUT=1s")
		gone.is(doctor.Failed, "mongodb", "mongodb.uri")
		gone.is(doctor.Failed, "overdue grants", "not checked")
		gone.is(doctor.OK, "mesh", "HTTP")
	}
	o := &onCall{harness: h}
	require.Contains(h.t, o.fails("doctor", "--timeout", "5s"), "checks failed")
	require.Contains(h.t, o.shown.String(), "mongodb indexes")
	code, stdout, _ := o.run("doctor", "-c", "/nonexistent.yaml", "-o", "json")
	require.Equal(h.t, cli.ExitUsage, code)
	require.Contains(h.t, stdout, `"check": "configuration"`)
}

// doctorLooks has the doctor look with a worker's permissions, and with less.
func (c *callers) doctorLooks() {
	found := c.examine(0, c.settingsOf("worker")...)
	found.allBut()
	found.is(doctor.OK, "nats tls", "encrypted")
	for _, name := range []string{"nats.cert_file", "nats.ca_file", "the certificate of the NATS server"} {
		found.is(doctor.OK, "credentials", name+" until ")
	}
	found = c.examineWithin(3*time.Second, 0, c.settingsOf("reader")...)
	found.is(doctor.Failed, "nats permissions", "publish latchkey.deadletter.")
	found.is(doctor.Failed, "nats streams", "permissions violation")
}
