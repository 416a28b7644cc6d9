package worker_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/doctor"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/streams"
)

// keepStreams makes the streams that deploy/nats/streams.yaml describes, as NACK does.
func (h *harness) keepStreams() {
	h.t.Helper()
	text, err := os.ReadFile("../../../deploy/nats/streams.yaml")
	require.NoError(h.t, err)
	for docs := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()); ; {
		var d struct {
			APIVersion string `yaml:"apiVersion"`
			Kind       string
			Metadata   struct{ Name string }
			Spec       struct {
				Name, Description, Retention, Discard, Storage string

				Subjects  []string
				Replicas  int
				MaxAge    time.Duration `yaml:"maxAge"`
				Window    time.Duration `yaml:"duplicateWindow"`
				MaxBytes  int64         `yaml:"maxBytes"`
				Schedules bool          `yaml:"allowMsgSchedules"`
				Direct    bool          `yaml:"allowDirect"`
				NoDelete  bool          `yaml:"denyDelete"`
				NoPurge   bool          `yaml:"denyPurge"`
			}
		}
		err := docs.Decode(&d)
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(h.t, err)
		require.Equal(h.t, "jetstream.nats.io/v1beta2 Stream", d.APIVersion+" "+d.Kind)
		s := d.Spec
		require.Equal(h.t, strings.ReplaceAll(strings.ToLower(s.Name), "_", "-"), d.Metadata.Name)
		c := jetstream.StreamConfig{
			Name: s.Name, Description: s.Description, Subjects: s.Subjects, Replicas: 1, MaxAge: s.MaxAge, Duplicates: s.Window, MaxBytes: s.MaxBytes,
			AllowMsgSchedules: s.Schedules, AllowDirect: s.Direct, DenyDelete: s.NoDelete, DenyPurge: s.NoPurge,
		}
		require.NoError(h.t, c.Retention.UnmarshalJSON([]byte(`"`+s.Retention+`"`)))
		require.NoError(h.t, c.Discard.UnmarshalJSON([]byte(`"`+s.Discard+`"`)))
		require.NoError(h.t, c.Storage.UnmarshalJSON([]byte(`"`+s.Storage+`"`)))
		if h.subjects.Prefix != "" {
			c.Name = strings.ToUpper(h.subjects.Prefix) + "_" + c.Name
			for i := range c.Subjects {
				c.Subjects[i] = h.subjects.Prefix + "." + c.Subjects[i]
			}
		}
		_, err = h.js.CreateStream(h.ctx, c)
		require.NoError(h.t, err, s.Name)
	}
}

// A worker works on streams that somebody else keeps, changes none of them, and ends,
// naming what it lacks, where it can't work.
func TestAWorkerOnStreamsThatSomebodyElseKeeps(t *testing.T) {
	t.Parallel()
	h := start(t, map[string]meshsim.Institution{"coinbase": {AccessLifetime: 3 * time.Second, RefreshLifetime: time.Hour}})
	const theirs = "LATCHKEY_NATS_MANAGE_STREAMS=false"
	_, err := h.tryWorker(theirs)
	require.ErrorIs(t, err, streams.ErrUnfit)
	require.ErrorContains(t, err, "stream "+h.subjects.RefreshStream()+" is missing")
	h.examine(theirs).Is(doctor.Failed, "nats streams", "missing: "+h.subjects.IntegrationStream())

	h.keepStreams()
	h.examine(theirs).Is(doctor.OK, "nats streams", "6 streams as configured")
	of := func(name string) jetstream.StreamConfig {
		stream, err := h.js.Stream(h.ctx, name)
		require.NoError(t, err)
		return stream.CachedInfo().Config
	}
	recovery := of(h.subjects.RecoveryStream())
	w := h.worker(theirs)
	h.publishConnected("alice", h.issue("coinbase", "alice"), time.Time{})
	h.event(events.TokenRefreshed, "alice")
	require.Equal(t, recovery, of(h.subjects.RecoveryStream()))
	require.Empty(t, h.owner(h.js))
	h.examine(theirs).Is(doctor.OK, "nats consumers", "consumers as configured")

	loses := recovery
	loses.MaxAge = time.Hour
	_, err = h.js.UpdateStream(h.ctx, loses)
	require.NoError(t, err)
	err = w.ends()
	require.ErrorIs(t, err, streams.ErrUnfit)
	require.ErrorContains(t, err, h.subjects.RecoveryStream()+": max_age is 1h0m0s, not 0s")
	found := h.examine(theirs)
	found.Is(doctor.Failed, "nats streams", h.subjects.RecoveryStream()+" (max_age is 1h0m0s, not 0s)")
	found.Is(doctor.Failed, "nats streams", "docs/streams.md")
	_, err = h.js.UpdateStream(h.ctx, recovery)
	require.NoError(t, err)

	consumer, err := h.js.Consumer(h.ctx, h.subjects.RefreshStream(), streams.Durable(h.subjects.RefreshDue()))
	require.NoError(t, err)
	drops := consumer.CachedInfo().Config
	drops.MaxDeliver = 3
	_, err = h.js.UpdateConsumer(h.ctx, h.subjects.RefreshStream(), drops)
	require.NoError(t, err)
	_, err = h.tryWorker(theirs)
	require.ErrorIs(t, err, streams.ErrUnfit)
	require.ErrorContains(t, err, "max_deliver is 3, not -1")
	h.examine(theirs).Is(doctor.Failed, "nats consumers", "max_deliver is 3, not -1")

	// Left to a worker they become what it makes of them, and what was set stays.
	h.examine().Is(doctor.Failed, "nats streams", "missing: "+h.subjects.CanaryStream())
	h.worker().stop()
	h.examine().Is(doctor.OK, "nats streams", "7 streams as configured")
	kept := of(h.subjects.LifecycleStream())
	kept.MaxBytes = 1 << 20
	_, err = h.js.UpdateStream(h.ctx, kept)
	require.NoError(t, err)
	h.worker().stop()
	h.examine().Is(doctor.OK, "nats streams", "left as somebody set it: "+h.subjects.LifecycleStream()+" (max_bytes 1048576)")
	h.examine("LATCHKEY_NATS_REPLICAS=3").Is(doctor.Warning, "nats streams", "nats.replicas is 3, but "+h.subjects.CanaryStream()+" has 1")
	for range 20 {
		_, err := h.js.Publish(h.ctx, h.subjects.Rejected("nobody"), make([]byte, 100_000))
		require.NoError(t, err)
	}
	h.examine().Is(doctor.Warning, "nats streams", "--max-bytes")
}
