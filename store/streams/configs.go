package streams

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// configs returns all streams, the canary first. own says which of these settings are
// Latchkey's to keep; the others count when a stream is made.
func (s *Topology) configs() []jetstream.StreamConfig {
	return append(s.otherStreams(), s.schedules()...)
}

// queueConfig is common to the work queues. A work queue deletes a message once it is
// handled, so that the tokens of a connect stay no longer than they must.
func (s *Topology) queueConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{Storage: jetstream.FileStorage, Replicas: s.nats.Replicas, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew}
}

// schedules returns the streams in which refreshes wait.
func (s *Topology) schedules() (refreshes []jetstream.StreamConfig) {
	for _, p := range s.subjects.RefreshPartitions() {
		refresh := s.queueConfig()
		refresh.Discard = jetstream.DiscardOld // NATS has no schedules without; reconciliation makes again what is lost
		refresh.Name = p.Stream
		refresh.Description = "Schedules of refreshes, and those that have come due"
		refresh.Subjects = []string{p.Schedules, p.Due, p.Urgent}
		refresh.AllowMsgSchedules = true
		refresh.AllowDirect = true
		if id := s.installation.Load(); id != nil {
			refresh.Metadata = map[string]string{installationKey: *id}
		}
		refreshes = append(refreshes, refresh)
	}
	return refreshes
}

// otherStreams returns the streams without schedules, the canary first.
func (s *Topology) otherStreams() []jetstream.StreamConfig {
	base := jetstream.StreamConfig{Storage: jetstream.FileStorage, Replicas: s.nats.Replicas}

	integration := s.queueConfig()
	integration.Name = s.subjects.IntegrationStream()
	integration.Description = "Connects and disconnects that wait to be handled"
	integration.Subjects = []string{s.subjects.Connected(), s.subjects.Disconnected()}

	recovery := s.queueConfig()
	recovery.Name = s.subjects.RecoveryStream()
	recovery.Description = "Sealed answers of Mesh that wait for the database"
	recovery.Subjects = []string{s.subjects.RecoveryAll(), s.subjects.RecoveryParts()}
	recovery.Duplicates = 10 * time.Minute

	dead := base
	dead.Name = s.subjects.DeadLetterStream()
	dead.Description = "Messages that could not be handled, sealed"
	dead.Subjects = []string{s.subjects.DeadLetterAll()}
	dead.MaxAge = s.retention.DeadLetters
	dead.Discard = jetstream.DiscardNew
	dead.Duplicates = min(10*time.Minute, s.retention.DeadLetters)

	all := append([]jetstream.StreamConfig{s.canary(), integration, recovery}, s.lifecycle()...)
	all = append(all, dead)
	if s.audit {
		all = append(all, s.auditLog()...)
	}
	return all
}

// auditLog returns the streams of the audit log, from which only age removes messages.
func (s *Topology) auditLog() (all []jetstream.StreamConfig) {
	for _, p := range s.subjects.AuditPartitions() {
		all = append(all, jetstream.StreamConfig{
			Name: p.Stream, Subjects: []string{p.Chains}, Replicas: s.nats.Replicas,
			Description: "Who was given tokens, and what was done with them, in chains of hashes",
			Storage:     jetstream.FileStorage, MaxAge: s.retention.Audit, Duplicates: min(10*time.Minute, s.retention.Audit),
			DenyDelete: true, DenyPurge: true, Discard: jetstream.DiscardNew, AllowDirect: true, // for store/direct
		})
	}
	return all
}

// canary is the stream that Ensure risks: nothing is ever published to it.
func (s *Topology) canary() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: s.subjects.CanaryStream(), Subjects: []string{s.subjects.Canary()}, Replicas: s.nats.Replicas, MaxMsgs: 1,
		Description: "Holds nothing; shows whether NATS has its old encryption key",
	}
}
