package streams

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
)

// Difference is a setting of a stream or consumer that is not what Latchkey makes of it.
type Difference struct {
	Setting, Is, Want string
	// Needed: workers can't work, or lose something, without it. Else the configuration
	// wishes it.
	Needed bool
}

func (d Difference) String() string { return fmt.Sprintf("%s is %s, not %s", d.Setting, d.Is, d.Want) }

// routes reports whether the setting decides where a message goes, or who finds it.
func (d Difference) routes() bool {
	return slices.Contains([]string{settingSubjects, settingTransform, settingRePublish, settingPartitions}, d.Setting)
}

// Settings that route messages.
const (
	settingSubjects   = "subjects"
	settingTransform  = "subject_transform"
	settingRePublish  = "republish"
	settingPartitions = "metadata " + events.PartitionsKey
)

// differences are those of one stream or consumer.
type differences []Difference

func (d differences) String() string {
	var all []string
	for _, one := range d {
		all = append(all, one.String())
	}
	return strings.Join(all, ", ")
}

// needed returns those that workers can't do without.
func (d differences) needed() differences {
	return slices.DeleteFunc(slices.Clone(d), func(one Difference) bool { return !one.Needed })
}

// need sets a field unless it has the value that workers need.
func need[T comparable](d *differences, setting string, field *T, want T) {
	fix(d, setting, field, want, *field == want, true)
}

// fix sets a field unless it fits.
func fix[T any](d *differences, setting string, field *T, want T, fits, needed bool) {
	if !fits {
		*d = append(*d, Difference{setting, fmt.Sprint(*field), fmt.Sprint(want), needed})
		*field = want
	}
}

// withOwned returns a stream's configuration with what Latchkey owns of it as it wants it, and
// everything else as it is: limits, placement, replicas, compression and so on are the
// operator's. differ says what it changed.
func (s *Topology) withOwned(want, is jetstream.StreamConfig) (owned jetstream.StreamConfig, differ differences) {
	c := is
	fix(&differ, settingSubjects, &c.Subjects, want.Subjects, sameSet(c.Subjects, want.Subjects), true)
	need(&differ, "retention", &c.Retention, want.Retention)
	need(&differ, "storage", &c.Storage, want.Storage)
	need(&differ, "no_ack", &c.NoAck, false)
	need(&differ, "sealed", &c.Sealed, false)
	need(&differ, "deny_delete", &c.DenyDelete, want.DenyDelete)
	need(&differ, "deny_purge", &c.DenyPurge, want.DenyPurge)
	fix(&differ, "mirror", &c.Mirror, nil, c.Mirror == nil, true)
	fix(&differ, settingTransform, &c.SubjectTransform, want.SubjectTransform, sameAs(c.SubjectTransform, want.SubjectTransform), true)
	if want.RePublish != nil || sameAs(c.RePublish, s.passedOn()) { // any other is the operator's
		fix(&differ, settingRePublish, &c.RePublish, want.RePublish, sameAs(c.RePublish, want.RePublish), true)
	}
	fix(&differ, "persist_mode", &c.PersistMode, want.PersistMode, c.PersistMode != jetstream.AsyncPersistMode, true)
	fix(&differ, "allow_msg_schedules", &c.AllowMsgSchedules, true, c.AllowMsgSchedules || !want.AllowMsgSchedules, true)
	fix(&differ, "allow_direct", &c.AllowDirect, true, c.AllowDirect || !want.AllowDirect, want.AllowMsgSchedules) // other streams are read so by people alone
	// What a stream may not lose it refuses where it is full. Events for subscribers
	// make room for newer ones, so that they delay no worker.
	need(&differ, "discard", &c.Discard, want.Discard)
	need(&differ, "discard_new_per_subject", &c.DiscardNewPerSubject, false) // NATS takes it with the other two alone
	if want.Discard == jetstream.DiscardNew || want.AllowMsgSchedules {
		fix(&differ, "max_msgs_per_subject", &c.MaxMsgsPerSubject, -1, c.MaxMsgsPerSubject <= 0, true)
	}
	fix(&differ, "max_age", &c.MaxAge, want.MaxAge, c.MaxAge == want.MaxAge, want.MaxAge == 0)
	short, long := c.Duplicates < want.Duplicates, c.MaxAge > 0 && c.Duplicates > c.MaxAge // NATS takes none longer than the age
	fix(&differ, "duplicate_window", &c.Duplicates, want.Duplicates, !short && !long, short)
	if want.MaxBytes > 0 {
		fix(&differ, "max_bytes", &c.MaxBytes, want.MaxBytes, c.MaxBytes > 0, false)
	}
	if id := want.Metadata[installationKey]; id != "" && s.nats.ManageStreams && c.Metadata[installationKey] != id {
		fix(&differ, "metadata", &c.Metadata, withEntry(c.Metadata, installationKey, id), false, false)
	}
	ours, _ := events.PartitionsIn(want.Metadata)
	if theirs, ok := events.PartitionsIn(c.Metadata); ours > 1 && (theirs < ours || !ok) {
		n := want.Metadata[events.PartitionsKey]
		differ = append(differ, Difference{settingPartitions, cmp.Or(c.Metadata[events.PartitionsKey], "not set"), n, true})
		c.Metadata = withEntry(c.Metadata, events.PartitionsKey, n)
	}
	return c, differ
}

// sameAs compares what two pointers point to.
func sameAs[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

func withEntry(m map[string]string, key, value string) map[string]string {
	m = maps.Clone(m)
	if m == nil {
		m = map[string]string{}
	}
	m[key] = value
	return m
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// foreignSettings names what others set on a stream, which stays.
func foreignSettings(want, is jetstream.StreamConfig) (all []string) {
	add := func(setting string, other bool, value any) {
		if other {
			all = append(all, fmt.Sprintf("%s %v", setting, value))
		}
	}
	add("replicas", is.Replicas != want.Replicas, is.Replicas)
	add("max_msgs", is.MaxMsgs > 0 && is.MaxMsgs != want.MaxMsgs, is.MaxMsgs)
	add("max_bytes", is.MaxBytes > 0 && is.MaxBytes != want.MaxBytes, is.MaxBytes)
	add("max_msg_size", is.MaxMsgSize > 0, is.MaxMsgSize)
	add("max_consumers", is.MaxConsumers > 0, is.MaxConsumers)
	add("compression", is.Compression != jetstream.NoCompression, is.Compression)
	if p := is.Placement; p != nil {
		add("placement", p.Cluster != "" || len(p.Tags) > 0, strings.TrimSpace(p.Cluster+" "+strings.Join(p.Tags, " ")))
	}
	if is.RePublish != nil && want.RePublish == nil {
		add("republish", true, is.RePublish.Destination)
	}
	return all
}

// consumerWithOwned is withOwned for a durable consumer.
func (s *Topology) consumerWithOwned(want, is jetstream.ConsumerConfig) (owned jetstream.ConsumerConfig, differ differences) {
	c := is
	fix(&differ, "filter_subject", &c.FilterSubject, want.FilterSubject, c.FilterSubject == want.FilterSubject && len(c.FilterSubjects) == 0, true)
	c.FilterSubjects = nil
	need(&differ, "deliver_subject", &c.DeliverSubject, "")
	need(&differ, "deliver_policy", &c.DeliverPolicy, want.DeliverPolicy)
	need(&differ, "replay_policy", &c.ReplayPolicy, want.ReplayPolicy)
	need(&differ, "ack_policy", &c.AckPolicy, want.AckPolicy)
	fix(&differ, "ack_wait", &c.AckWait, want.AckWait, c.AckWait == want.AckWait, c.AckWait < want.AckWait)
	fix(&differ, "backoff", &c.BackOff, nil, len(c.BackOff) == 0, true)
	need(&differ, "max_deliver", &c.MaxDeliver, want.MaxDeliver)
	need(&differ, "max_ack_pending", &c.MaxAckPending, want.MaxAckPending)
	need(&differ, "headers_only", &c.HeadersOnly, false)
	need(&differ, "max_batch", &c.MaxRequestBatch, 0)
	need(&differ, "max_expires", &c.MaxRequestExpires, 0)
	need(&differ, "max_bytes", &c.MaxRequestMaxBytes, 0)
	return c, differ
}
