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

// Events and the audit log are partitioned as refreshes are: one partition has the plain
// names, names depend on the number alone, and no two partitions share a subject.
func TestPartitionsOfEventsAndOfTheAuditLog(t *testing.T) {
	for _, partitions := range []int{0, 1} {
		s := events.Subjects{Prefix: "eu", Partitions: partitions}
		require.Equal(t, []events.LifecyclePartition{{Stream: s.LifecycleStream()}}, s.LifecyclePartitions())
		require.Equal(t, s.Lifecycle(events.TokenStored, "a.b"), s.PublishedLifecycle(s.Lifecycle(events.TokenStored, "a.b")))
		require.Len(t, s.AuditPartitions(), 1)
		p := s.AuditPartition("chain")
		require.Equal(t, []string{s.AuditStream(), "eu.latchkey.audit.*", "eu.latchkey.audit.chain"}, []string{p.Stream, p.Chains, p.Chain("chain")})
	}
	s := events.Subjects{Prefix: "eu", Partitions: 12}
	lifecycle, audit := s.LifecyclePartitions(), s.AuditPartitions()
	require.Equal(t, []string{"EU_LATCHKEY_LIFECYCLE", "EU_LATCHKEY_LIFECYCLE_11"}, []string{lifecycle[0].Stream, lifecycle[11].Stream})
	require.Equal(t, []string{"EU_LATCHKEY_AUDIT", "EU_LATCHKEY_AUDIT_11"}, []string{audit[0].Stream, audit[11].Stream})
	public := []string{s.RejectedAll()}
	for _, kind := range events.LifecycleKinds {
		public = append(public, s.LifecycleAll(kind))
	}
	for i := range 12 {
		for j := range 12 {
			require.Equal(t, i == j, server.SubjectsCollide(lifecycle[i].Published, lifecycle[j].Published))
			require.Equal(t, i == j, server.SubjectsCollide(audit[i].Chains, audit[j].Chains))
			require.False(t, server.SubjectsCollide(audit[i].Chains, lifecycle[j].Published))
		}
		for _, subject := range append(public, s.Changed("alice"), s.RecoveryParts()) {
			require.False(t, server.SubjectsCollide(lifecycle[i].Published, subject), "else an event would be stored again where it is passed on")
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := events.Subjects{Prefix: rapid.SampledFrom([]string{"", "eu"}).Draw(t, "prefix"), Partitions: rapid.IntRange(2, events.MaxPartitions).Draw(t, "partitions")}
		user := rapid.StringN(1, 20, -1).Draw(t, "user")
		subject := s.Lifecycle(rapid.SampledFrom(events.LifecycleKinds).Draw(t, "kind"), user)
		if rapid.Bool().Draw(t, "rejected") {
			subject = s.Rejected(user)
		}
		n := events.Subjects{Partitions: s.Partitions}.PartitionOf(events.EncodeUserID(user))
		published := s.PublishedLifecycle(subject)
		require.True(t, server.SubjectsCollide(published, s.LifecyclePartitions()[n].Published), "all events of a user are in one stream")
		transform, err := server.NewSubjectTransform(s.LifecyclePartitions()[n].Published, s.SubscribedLifecycle())
		require.NoError(t, err)
		known, err := transform.Match(published)
		require.NoError(t, err)
		require.Equal(t, subject, known)
		again, err := server.NewSubjectTransform(s.StoredLifecycle(), s.SubscribedLifecycle())
		require.NoError(t, err)
		known, err = again.Match(subject)
		require.NoError(t, err)
		require.Equal(t, subject, known, "where it is passed on")
	})
}
