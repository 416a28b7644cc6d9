package events

import (
	"hash/fnv"
	"strconv"
)

// MaxPartitions limits Subjects.Partitions. Every worker keeps two pull requests open
// for each partition.
const MaxPartitions = 256

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
	stream, part := "REFRESH", ""
	if n > 0 {
		stream, part = stream+"_"+strconv.Itoa(n), "."+strconv.Itoa(n)
	}
	p := Partition{
		Stream: s.stream(stream), schedule: s.subject("refresh.schedule" + part + "."),
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
func (s Subjects) PartitionOf(grantID string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(grantID)) // it never fails
	return int(h.Sum32() % uint32(max(s.Partitions, 1)))
}

// RefreshPartition returns the partition of a grant.
func (s Subjects) RefreshPartition(grantID string) Partition {
	return s.partition(s.PartitionOf(grantID))
}
