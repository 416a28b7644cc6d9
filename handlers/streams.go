package handlers

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
)

// StreamMemory remembers, outside of NATS, that there were streams, and whose.
type StreamMemory interface {
	Installations
	// StreamsSeen returns when a worker last saw the streams that are remembered.
	StreamsSeen(ctx context.Context) (time.Time, error)
	// SeeStreams records that a worker sees the streams of this identity.
	SeeStreams(ctx context.Context, identity string, at time.Time) error
	StreamIdentity(ctx context.Context) (string, error)
	RememberStream(ctx context.Context, identity string) error
	SuspectStreams(ctx context.Context) (first bool, err error)
}

// Streams creates and checks the JetStream streams and consumers.
type Streams struct {
	js        jetstream.JetStream
	memory    StreamMemory
	subjects  events.Subjects
	nats      config.NATS
	retention config.Retention
	messages  config.Messages
	audit     bool          // there is an audit log
	interval  time.Duration // at which workers look at the streams
	log       *zap.Logger
	// installation is whose streams these are, once that is known; seen: this
	// process has seen them.
	installation atomic.Pointer[string]
	seen         atomic.Bool
	// looked are the identities of the schedule streams as they were seen last.
	looked atomic.Pointer[[]string]
}

// NewStreams returns Streams for an installation.
func NewStreams(js jetstream.JetStream, memory StreamMemory, cfg config.Config, log *zap.Logger) *Streams {
	return &Streams{
		js: js, memory: memory, subjects: cfg.NATS.Subjects(), nats: cfg.NATS,
		retention: cfg.Retention, messages: cfg.Messages, audit: cfg.Audit.Mode != config.AuditOff,
		interval: cfg.Reconcile.Interval, log: log,
	}
}

// Message schedules came with this version of nats-server.
const minServerMajor, minServerMinor = 2, 12

// ErrNATS: the NATS server can't do what the worker needs.
var ErrNATS = errors.New("NATS is not usable")

// CheckServer says in plain words what a server lacks.
func CheckServer(ctx context.Context, js jetstream.JetStream) error {
	if err := CheckVersion(js.Conn().ConnectedServerVersion()); err != nil {
		return err
	}
	return CheckJetStream(ctx, js)
}

// CheckVersion says whether a server of this version has message schedules.
func CheckVersion(version string) error {
	major, minor, ok := parseVersion(version)
	if !ok || major < minServerMajor || major == minServerMajor && minor < minServerMinor {
		return fmt.Errorf("%w: server version %q is too old for message schedules; at least %d.%d is needed", ErrNATS, version, minServerMajor, minServerMinor)
	}
	return nil
}

// CheckJetStream says whether the account can use JetStream.
func CheckJetStream(ctx context.Context, js jetstream.JetStream) error {
	_, err := js.AccountInfo(ctx)
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		return fmt.Errorf("%w: JetStream is off; start nats-server with -js and enable it for the account", ErrNATS)
	}
	if err != nil {
		return fmt.Errorf("asking NATS about JetStream: %w", err)
	}
	return nil
}

func parseVersion(v string) (major, minor int, ok bool) {
	parts := strings.SplitN(strings.TrimPrefix(v, "v"), ".", 3)
	if len(parts) < 3 {
		return 0, 0, false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	return major, minor, err1 == nil && err2 == nil
}

// ErrStreamsGone: the streams that there were are missing, and to create them
// could destroy what is left of them.
var ErrStreamsGone = errors.New("the streams are gone from NATS")

// Ensure creates the streams that are missing, brings the others up to the
// configuration, and returns what tells each schedule stream, in the order of
// the partitions, from one made later under the same name. It may run on many
// workers at once.
//
// Streams that were there before and are gone were wiped, or are hidden because
// NATS runs with another encryption key. In the second case creating a stream
// destroys the hidden one. A stream that holds nothing is risked first.
func (s *Streams) Ensure(ctx context.Context) (identities []string, err error) {
	if err := s.settle(ctx); err != nil {
		return nil, err
	}
	stream, err := s.js.Stream(ctx, s.subjects.RefreshStream())
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		err = s.mayCreate(ctx)
	case err == nil && !s.nats.AdoptStreams:
		err = s.owned(stream)
	}
	if err != nil {
		return nil, fmt.Errorf("ensuring the streams: %w", err)
	}
	for _, c := range s.configs() {
		if _, err := s.js.CreateOrUpdateStream(ctx, c); err != nil {
			return nil, fmt.Errorf("ensuring stream %s: %w", c.Name, err)
		}
	}
	if identities, _, err = s.look(ctx); err != nil {
		return nil, err
	}
	return identities, s.remember(ctx, identities)
}

// mayCreate decides whether missing streams may be created.
func (s *Streams) mayCreate(ctx context.Context) error {
	known, err := s.memory.StreamIdentity(ctx)
	if err != nil || known == "" || s.nats.RecreateStreams {
		return err
	}
	if seen, err := s.canarySeen(ctx); err != nil || seen {
		return err
	}
	if err := s.nobodyElse(ctx); err != nil {
		return err
	}
	first, err := s.memory.SuspectStreams(ctx)
	if err != nil {
		return err
	}
	if !first {
		return fmt.Errorf("%w: another worker is finding out why, or has found that NATS runs with another encryption key; "+
			"if this lasts, restore the key, or set nats.recreate_streams if NATS was really wiped", ErrStreamsGone)
	}
	_, err = s.js.CreateStream(ctx, s.canary())
	if refusal := jetstream.JetStreamError(nil); err != nil && !errors.As(err, &refusal) {
		// Only a refusal says something of the key. Where the answer was lost, what
		// there is now does.
		if seen, lookErr := s.canarySeen(ctx); lookErr != nil || !seen {
			return fmt.Errorf("%w, and whether NATS can create one in their place is not known: %w", ErrStreamsGone, errors.Join(err, lookErr))
		}
		err = nil
	}
	if err != nil {
		return fmt.Errorf("%w, and NATS can't create one in their place: it runs with another encryption key than before; restore the key: %w", ErrStreamsGone, err)
	}
	return nil
}

// canarySeen reports whether NATS shows the canary. It does so only where it has
// the key with which the canary was made: before, or as the test of it.
func (s *Streams) canarySeen(ctx context.Context) (bool, error) {
	_, err := s.js.Stream(ctx, s.subjects.CanaryStream())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return false, nil
	}
	return err == nil, err
}

// canary is the stream that is risked: nothing is ever published to it.
func (s *Streams) canary() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: s.subjects.CanaryStream(), Subjects: []string{s.subjects.Canary()}, Replicas: s.nats.Replicas, MaxMsgs: 1,
		Description: "Holds nothing; shows whether NATS has its old encryption key",
	}
}

// configs are all streams, the canary first.
func (s *Streams) configs() []jetstream.StreamConfig { return append(s.others(), s.schedules()...) }

// queueConfig is common to the work queues. A work queue forgets a message once
// it is handled: a connected event, with its tokens, lies there no longer than it
// must.
func (s *Streams) queueConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{Storage: jetstream.FileStorage, Replicas: s.nats.Replicas, Retention: jetstream.WorkQueuePolicy}
}

// schedules are the streams in which refreshes wait.
func (s *Streams) schedules() []jetstream.StreamConfig {
	refreshes := make([]jetstream.StreamConfig, 0, s.nats.Partitions)
	for _, p := range s.subjects.RefreshPartitions() {
		refresh := s.queueConfig()
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

// others are all other streams, the canary first.
func (s *Streams) others() []jetstream.StreamConfig {
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

	lifecycle := base
	lifecycle.Name = s.subjects.LifecycleStream()
	lifecycle.Description = "What happened to grants, for subscribers"
	for _, kind := range events.LifecycleKinds {
		lifecycle.Subjects = append(lifecycle.Subjects, s.subjects.LifecycleAll(kind))
	}
	lifecycle.Subjects = append(lifecycle.Subjects, s.subjects.RejectedAll())
	lifecycle.MaxAge = s.retention.Events
	lifecycle.Duplicates = 10 * time.Minute

	dead := base
	dead.Name = s.subjects.DeadLetterStream()
	dead.Description = "Messages that could not be handled, sealed"
	dead.Subjects = []string{s.subjects.DeadLetterAll()}
	dead.MaxAge = s.retention.DeadLetters
	dead.Duplicates = 10 * time.Minute

	all := []jetstream.StreamConfig{s.canary(), integration, recovery, lifecycle, dead}
	if s.audit {
		all = append(all, s.auditLog())
	}
	return all
}

// auditLog is the stream of the audit log. What lies there leaves by age only.
func (s *Streams) auditLog() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: s.subjects.AuditStream(), Subjects: []string{s.subjects.AuditAll()}, Replicas: s.nats.Replicas,
		Description: "Who was given tokens, and what was done with them, in chains of hashes",
		Storage:     jetstream.FileStorage, MaxAge: s.retention.Audit, Duplicates: min(10*time.Minute, s.retention.Audit),
		DenyDelete: true, DenyPurge: true,
	}
}

// Consumer ensures the durable consumer of one subject.
func (s *Streams) Consumer(ctx context.Context, stream, subject string) (jetstream.Consumer, error) {
	c, err := s.js.CreateOrUpdateConsumer(ctx, stream, jetstream.ConsumerConfig{
		Durable:       Durable(subject),
		FilterSubject: subject,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       s.messages.AckWait,
		// The bound on tries is the handlers' (a message past it becomes a dead
		// letter); the server's would drop it without a word.
		MaxDeliver: -1,
		// So is the bound on messages under way. The server's counts those that
		// wait to come back, too: enough of them would hold up all others.
		MaxAckPending: -1,
	})
	if err != nil {
		return nil, fmt.Errorf("ensuring the consumer of %s: %w", subject, err)
	}
	return c, nil
}

// Durable names the consumer of a subject.
func Durable(subject string) string {
	return "latchkey-" + strings.NewReplacer(".", "-", "*", "all").Replace(subject)
}
