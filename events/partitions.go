package events

import (
	"hash/fnv"
	"strconv"
	"strings"
)

// MaxPartitions limits Subjects.Partitions. Every worker keeps two pull requests open
// for each partition.
const MaxPartitions = 256

// PartitionsKey is where a worker writes, into the metadata of the first stream of events, how
// many of them there are, so that subscribers need not be told. Without it there is one.
const PartitionsKey = "latchkey-partitions"

// PartitionsIn returns how many streams of events the metadata of the first name, 1 where they
// name none. ok: it is a number as a worker writes it, else n is 1.
func PartitionsIn(metadata map[string]string) (n int, ok bool) {
	text, named := metadata[PartitionsKey]
	if !named {
		return 1, true
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > MaxPartitions || strconv.Itoa(n) != text {
		return 1, false
	}
	return n, true
}

// Partition is one of the streams that share the refreshes of an installation. Its names
// depend only on its number, and those of the first have no number, so that a change of
// Subjects.Partitions renames no stream.
type Partition struct {
	// Stream holds the schedules and the refreshes that are due.
	Stream string
	// Schedules matches every schedule in it.
	Schedules string
	// Due is where JetStream publishes a schedule at its time; Urgent is the same for
	// schedules that must not wait behind a backlog.
	Due, Urgent string

	schedule string
}

// Schedule is the subject of the pending schedule of one grant.
func (p Partition) Schedule(grantID string) string { return p.schedule + grantID }

func (s Subjects) partition(n int) Partition {
	part := numbered("", ".", n)
	p := Partition{
		Stream: s.stream(numbered("REFRESH", "_", n)), schedule: s.subject("refresh.schedule" + part + "."),
		Due: s.subject("refresh.due" + part), Urgent: s.subject("refresh.urgent" + part),
	}
	p.Schedules = p.schedule + "*"
	return p
}

// RefreshPartitions returns all partitions in order.
func (s Subjects) RefreshPartitions() []Partition {
	all := make([]Partition, max(s.Partitions, 1))
	for n := range all {
		all[n] = s.partition(n)
	}
	return all
}

// PartitionOf returns the number of a grant's partition, from 0: FNV-1a of the id, modulo
// Partitions.
func (s Subjects) PartitionOf(grantID string) int { return s.partitionOf(grantID) }

// RefreshPartition returns the partition of a grant.
func (s Subjects) RefreshPartition(grantID string) Partition {
	return s.partition(s.PartitionOf(grantID))
}

// LifecyclePartition is one of the streams that share the events of an installation. They
// hold the events under the subjects that subscribers know, those of a user in one stream.
type LifecyclePartition struct {
	Stream string
	// Published matches the subjects that workers publish to. NATS maps them to those that
	// subscribers know, both where it stores an event and where it passes it on to plain
	// subscriptions. Empty where one stream takes all events from the subscribers' subjects.
	Published string

	publish string
}

// Publish is where a worker publishes an event of a kind about a user, if Published is not empty.
func (p LifecyclePartition) Publish(kind, userID string) string {
	return p.publish + kind + "." + EncodeUserID(userID)
}

// LifecyclePartitions returns the streams of events in order. The first has the name that
// the only one has, so that a change of Partitions renames no stream.
func (s Subjects) LifecyclePartitions() []LifecyclePartition {
	all := make([]LifecyclePartition, max(s.Partitions, 1))
	for n := range all {
		all[n].Stream = s.stream(numbered("LIFECYCLE", "_", n))
		if len(all) > 1 {
			all[n].publish = s.lifecyclePart(n)
			all[n].Published = all[n].publish + "*.*.*"
		}
	}
	return all
}

// PublishedLifecycle returns where a worker publishes an event that subscribers receive as
// subject, which ends in the user.
func (s Subjects) PublishedLifecycle(subject string) string {
	if s.Partitions <= 1 {
		return subject
	}
	user := subject[strings.LastIndexByte(subject, '.')+1:]
	return s.lifecyclePart(s.partitionOf(user)) + strings.TrimPrefix(subject, s.subject(""))
}

// StoredLifecycle matches the subjects under which the streams of events hold them, which are
// those that subscribers know.
func (s Subjects) StoredLifecycle() string { return s.subject("*.*.*") }

// SubscribedLifecycle is what NATS maps LifecyclePartition.Published to: the destination of a
// subject transform.
func (s Subjects) SubscribedLifecycle() string {
	return s.subject("{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}")
}

func (s Subjects) lifecyclePart(n int) string {
	return s.subject("latchkey.lifecycle." + strconv.Itoa(n) + ".")
}

// AuditPartition is one of the streams that share the audit log. A chain is in one stream.
type AuditPartition struct {
	Stream string
	// Chains matches the subjects of all its chains.
	Chains string

	chain string
}

// Chain is the subject of one chain.
func (p AuditPartition) Chain(chain string) string { return p.chain + chain }

func (s Subjects) auditPartition(n int) AuditPartition {
	p := AuditPartition{Stream: s.stream(numbered("AUDIT", "_", n)), chain: s.subject(numbered("latchkey.audit", ".", n) + ".")}
	p.Chains = p.chain + "*"
	return p
}

// AuditPartitions returns the streams of the audit log in order.
func (s Subjects) AuditPartitions() []AuditPartition {
	all := make([]AuditPartition, max(s.Partitions, 1))
	for n := range all {
		all[n] = s.auditPartition(n)
	}
	return all
}

// AuditPartition returns the partition of a chain.
func (s Subjects) AuditPartition(chain string) AuditPartition {
	return s.auditPartition(s.partitionOf(chain))
}

// Changed is where workers say that something about a user's grants has changed, for the
// workers that keep them in memory. It has no body.
func (s Subjects) Changed(userID string) string {
	return s.subject("latchkey.changed." + EncodeUserID(userID))
}

// partitionOf spreads keys over the partitions: FNV-1a, modulo Partitions.
func (s Subjects) partitionOf(key string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key)) // it never fails
	return int(h.Sum32() % uint32(max(s.Partitions, 1)))
}

// numbered adds the number of a partition to a name, except that of the first.
func numbered(name, separator string, n int) string {
	if n == 0 {
		return name
	}
	return name + separator + strconv.Itoa(n)
}
