package audit_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/audit"
	"github.com/latchkey/latchkey/store/streams/streamstest"
)

// patience bounds every wait, which ends as soon as what it waits for is there.
const patience = time.Minute

// retention is how long the tests' logs go back.
const retention = 24 * time.Hour

// fixture is an audit log's streams, one of which a test looks into, and the heads that
// belong to it.
type fixture struct {
	t        testing.TB
	js       jetstream.JetStream
	subjects events.Subjects
	in       int // the number of that stream

	mu    sync.Mutex
	heads map[string]audit.Head
}

// newFixture makes the streams of an installation with a prefix, and so many partitions.
func newFixture(t testing.TB, url string, partitions ...int) *fixture {
	t.Helper()
	return fixtureOf(t, url, events.Subjects{Prefix: strings.ReplaceAll(enginestest.Name(t), "_", "-"), Partitions: append(partitions, 1)[0]})
}

func fixtureOf(t testing.TB, url string, subjects events.Subjects) *fixture {
	t.Helper()
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	f := &fixture{t: t, subjects: subjects, heads: map[string]audit.Head{}}
	f.js, err = jetstream.New(nc)
	require.NoError(t, err)
	f.ensure()
	return f
}

// ensure makes the streams as a worker does.
func (f *fixture) ensure() {
	f.t.Helper()
	cfg := config.Default()
	cfg.NATS.Prefix, cfg.NATS.Partitions, cfg.Retention.Audit = f.subjects.Prefix, max(f.subjects.Partitions, 1), retention
	_, err := streamstest.New(f.js, cfg, zap.NewNop()).Ensure(f.t.Context())
	require.NoError(f.t, err)
}

func (f *fixture) PutAuditHead(_ context.Context, h audit.Head) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heads[h.Chain] = h
	return nil
}

// log starts a log whose chain lies in the stream that the test looks into, with another way
// to publish if change says so.
func (f *fixture) log(change ...func(*audit.Options)) *audit.Log {
	o := audit.Options{
		JetStream: f.js, Subjects: f.subjects, Worker: "worker.1", NewID: f.newID, Now: time.Now, Heads: f, Retention: retention, HeadInterval: time.Hour,
	}
	for _, c := range change {
		c(&o)
	}
	l, err := audit.New(o)
	require.NoError(f.t, err)
	l.Start()
	return l
}

// newID returns an id that brings the chain of worker.1 into the stream.
func (f *fixture) newID() string {
	for {
		id := uuid.NewString()
		if f.subjects.AuditPartition("worker-1-"+id).Stream == f.subjects.AuditPartitions()[f.in].Stream {
			return id
		}
	}
}

// remove removes the stream that the test looks into.
func (f *fixture) remove() {
	f.t.Helper()
	require.NoError(f.t, f.js.DeleteStream(f.t.Context(), f.subjects.AuditPartitions()[f.in].Stream))
}

func (f *fixture) stop(l *audit.Log) {
	f.t.Helper()
	require.NoError(f.t, l.Stop(f.within(patience)))
}

// within returns a context that ends after a time, or with the test.
func (f *fixture) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(f.t.Context(), d)
	f.t.Cleanup(cancel)
	return ctx
}

// verify checks the log, and returns the faults and the notes.
func (f *fixture) verify(change ...func(*audit.Check)) (report audit.Report, faults, notes []string) {
	f.t.Helper()
	c := audit.Check{Retention: retention, Now: time.Now(), OnFinding: func(found audit.Finding) {
		require.NotEmpty(f.t, found.Stream, found.Text)
		if found.Fault {
			faults = append(faults, found.Text)
		} else {
			notes = append(notes, found.Text)
		}
	}}
	f.mu.Lock()
	for _, h := range f.heads {
		c.Heads = append(c.Heads, &h)
	}
	f.mu.Unlock()
	for _, do := range change {
		do(&c)
	}
	report, err := audit.Verify(f.within(patience), f.js, f.subjects, c)
	require.NoError(f.t, err)
	require.Equal(f.t, len(faults), report.Faults)
	require.Equal(f.t, len(notes), report.Notes)
	return report, faults, notes
}

// records returns all records of the log.
func (f *fixture) records() []audit.Entry {
	f.t.Helper()
	var all []audit.Entry
	require.NoError(f.t, audit.All(f.within(patience), f.js, f.subjects, time.Time{}, func(e audit.Entry) error {
		all = append(all, e)
		return nil
	}))
	return all
}

// message is a message of the stream as a tamperer has it.
type message struct {
	subject string
	body    []byte
	gone    bool // to be deleted once it is stored
}

func (f *fixture) stream() jetstream.Stream {
	f.t.Helper()
	s, err := f.js.Stream(f.t.Context(), f.subjects.AuditPartitions()[f.in].Stream)
	require.NoError(f.t, err)
	return s
}

// messages returns what is in the stream.
func (f *fixture) messages() []message {
	f.t.Helper()
	stream := f.stream()
	var all []message
	for seq := stream.CachedInfo().State.FirstSeq; seq <= stream.CachedInfo().State.LastSeq; seq++ {
		m, err := stream.GetMsg(f.t.Context(), seq)
		require.NoError(f.t, err)
		all = append(all, message{subject: m.Subject, body: m.Data})
	}
	return all
}

// rebuild replaces the stream by one of these messages, as somebody may who can
// do everything in NATS.
func (f *fixture) rebuild(all []message) {
	f.t.Helper()
	ctx := f.t.Context()
	cfg := f.stream().CachedInfo().Config
	cfg.DenyDelete, cfg.DenyPurge = false, false
	cfg.Storage = jetstream.MemoryStorage // the files of a deleted stream may outlast it for a moment
	require.NoError(f.t, f.js.DeleteStream(ctx, cfg.Name))
	stream, err := f.js.CreateStream(ctx, cfg)
	require.NoError(f.t, err)
	for _, m := range all {
		ack, err := f.js.Publish(ctx, m.subject, m.body)
		require.NoError(f.t, err)
		if m.gone {
			require.NoError(f.t, stream.DeleteMsg(ctx, ack.Sequence))
		}
	}
}
