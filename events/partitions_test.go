package events_test

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/events"
)

// An installation that has one partition, or does not say, has the names that
// there were before there were partitions.
func TestOnePartitionHasThePlainNames(t *testing.T) {
	for _, partitions := range []int{0, 1} {
		s := events.Subjects{Prefix: "eu", Partitions: partitions}
		all := s.RefreshPartitions()
		require.Len(t, all, 1)
		p := all[0]
		require.Equal(t, "EU_LATCHKEY_REFRESH", p.Stream)
		require.Equal(t, []string{"eu.refresh.schedule.*", "eu.refresh.due", "eu.refresh.urgent"}, []string{p.Schedules, p.Due, p.Urgent})
		require.Equal(t, []string{s.RefreshStream(), s.RefreshScheduleAll(), s.RefreshDue(), s.RefreshUrgent()}, []string{p.Stream, p.Schedules, p.Due, p.Urgent})
		require.Equal(t, "eu.refresh.schedule.g", s.RefreshSchedule("g"))
		require.Equal(t, p, s.RefreshPartition("any"))
	}
}

func TestPartitionsShareNoSubject(t *testing.T) {
	all := events.Subjects{Partitions: 12}.RefreshPartitions()
	require.Equal(t, events.Subjects{Partitions: 3}.RefreshPartitions(), all[:3], "names don't depend on how many there are")
	require.Equal(t, "LATCHKEY_REFRESH_11", all[11].Stream)
	require.Equal(t, "refresh.schedule.11.g", all[11].Schedule("g"))
	for i, p := range all {
		require.True(t, server.SubjectsCollide(p.Schedule("g"), p.Schedules))
		for j, q := range all {
			for _, a := range []string{p.Schedules, p.Due, p.Urgent} {
				for _, b := range []string{q.Schedules, q.Due, q.Urgent} {
					require.Equal(t, i == j && a == b, server.SubjectsCollide(a, b), "%s %s", a, b)
				}
			}
		}
	}
}

// The partition of a grant is the same on every worker and in every release: a
// change would leave all schedules where nobody looks for them.
func TestPartitionOfAGrantNeverChanges(t *testing.T) {
	s := events.Subjects{Partitions: 4}
	for id, want := range map[string]int{"": 1, "g1": 1, "g2": 0, "mzxw6ytboi4tcmrtgq2tmnzyheydcmrt": 2} {
		require.Equal(t, want, s.PartitionOf(id), id)
	}
	rapid.Check(t, func(t *rapid.T) {
		s := events.Subjects{Partitions: rapid.IntRange(1, events.MaxPartitions).Draw(t, "partitions")}
		id := rapid.String().Draw(t, "id")
		n := s.PartitionOf(id)
		require.Equal(t, s.RefreshPartitions()[n], s.RefreshPartition(id))
		require.Equal(t, s.RefreshPartition(id).Schedule(id), s.RefreshSchedule(id))
	})
}

func TestGrantsSpreadEvenly(t *testing.T) {
	const grants = 64_000
	for _, partitions := range []int{2, 7, 32, 64} {
		s, held := events.Subjects{Partitions: partitions}, map[int]int{}
		for n := range grants {
			held[s.PartitionOf(fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, n))))]++
		}
		for n := range partitions {
			require.InEpsilon(t, grants/partitions, held[n], 0.15, "partition %d of %d", n, partitions)
		}
	}
}
