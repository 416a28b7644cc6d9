package events

import (
	"hash/fnv"
	"strconv"
)

// MaxPartitions bounds Subjects.Partitions. Each partition costs every worker
// two requests for messages that are always open.
const MaxPartitions = 256

// Partition is one of the streams over which the refreshes of an installation
// are spread by grant, so that no single stream has to bear all of them. The
// first has the names of an installation that has only one; those of another
// depend on nothing but its number, so that changing how many there are renames
// none.
type Partition struct {
	// Stream holds the schedules and what has come due.
	Stream string
	// Schedules matches every schedule in it.
	Schedules string
	// Due is where JetStream delivers a schedule at its time, and Urgent where it
	// delivers one that must not wait behind a backlog.
	Due, Urgent string

	schedule string
}

// Schedule holds the pending schedule of one grant.
func (p Partition) Schedule(grantID string) string { return p.schedule + grantID }

// partition returns the partition of a number, from 0.
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

// RefreshPartitions returns all partitions, in the order of their numbers.
func (s Subjects) RefreshPartitions() []Partition {
	all := make([]Partition, max(s.Partitions, 1))
	for n := range all {
		all[n] = s.partition(n)
	}
	return all
}

// PartitionOf returns the number of the partition of a grant: FNV-1a of its id,
// modulo how many there are.
func (s Subjects) PartitionOf(grantID string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(grantID)) // it never fails
	return int(h.Sum32() % uint32(max(s.Partitions, 1)))
}

// RefreshPartition returns the partition of a grant.
func (s Subjects) RefreshPartition(grantID string) Partition {
	return s.partition(s.PartitionOf(grantID))
}
