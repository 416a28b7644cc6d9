// Package streams is the JetStream topology of an installation: its streams and durable
// consumers, their owner and backlog, and how to read and securely delete messages.
package streams

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/options"
)

// StateStore remembers the streams and their owner outside of NATS.
type StateStore interface {
	Installations
	// StreamsSeen returns when a worker last saw the remembered streams.
	StreamsSeen(ctx context.Context) (time.Time, error)
	// RecordStreamsSeen records that a worker sees the streams with this identity.
	RecordStreamsSeen(ctx context.Context, identity string, at time.Time) error
	StreamIdentity(ctx context.Context) (string, error)
	RememberStream(ctx context.Context, identity string) error
	SuspectStreams(ctx context.Context) (first bool, err error)
}

// Topology creates and checks the streams and durable consumers of an installation.
type Topology struct {
	js        jetstream.JetStream
	state     StateStore
	subjects  events.Subjects
	nats      config.NATS
	retention config.Retention
	messages  config.Messages
	audit     bool          // there is an audit log
	interval  time.Duration // at which workers look at the streams
	log       *zap.Logger
	// installation owns the streams, once it is known; seen: this process has seen
	// them.
	installation atomic.Pointer[string]
	streamsSeen  atomic.Bool
	// lastIdentities are the identities of the schedule streams when they were last seen.
	lastIdentities atomic.Pointer[[]string]
	// differed is what verify last warned of.
	differed atomic.Value
}

// Options for New. State is nil where nothing is made or claimed, as in checks.
type Options struct {
	JetStream jetstream.JetStream
	State     StateStore
	Config    config.Config
	Log       *zap.Logger
}

// New returns the topology of an installation.
func New(o Options) (*Topology, error) {
	if err := options.Require("the topology of streams", o, "JetStream", "Config", "Log"); err != nil {
		return nil, err
	}
	cfg := o.Config
	s := &Topology{
		js: o.JetStream, state: o.State, subjects: cfg.NATS.Subjects(), nats: cfg.NATS,
		retention: cfg.Retention, messages: cfg.Messages, audit: cfg.Audit.Mode != config.AuditOff,
		interval: cfg.Reconcile.Interval, log: o.Log,
	}
	s.lastIdentities.Store(new([]string))
	return s, nil
}

// ErrGone: the former streams are missing, and creating them could destroy what is left
// of them.
var ErrGone = errors.New("the streams are gone from NATS")

// Ensure creates the missing streams, updates what Latchkey owns of the others, and
// returns the identities of the schedule streams in the order of the partitions: a stream
// created later under the same name has another. Many workers may call it at once. Where
// somebody else keeps the streams it changes none, and returns an ErrUnfit if they are not
// what workers need.
//
// Streams that are gone were wiped, or NATS hides them since it runs with another
// encryption key, and creating a stream destroys the hidden one. So Ensure first creates
// the canary, which holds nothing.
func (s *Topology) Ensure(ctx context.Context) (identities []string, err error) {
	if err := s.claim(ctx); err != nil {
		return nil, err
	}
	if err := s.checkBeforeEnsure(ctx); err != nil {
		return nil, fmt.Errorf("ensuring the streams: %w", err)
	}
	if s.nats.ManageStreams {
		for _, c := range s.configs() {
			if err := s.ensure(ctx, c); err != nil {
				return nil, err
			}
		}
	} else if err := s.verify(ctx); errors.Is(err, ErrUnfit) || err != nil && !s.streamsSeen.Load() {
		return nil, err
	} else if err != nil && ctx.Err() == nil {
		s.log.Warn("a stream is missing; the next pass checks again", zap.Error(err))
	}
	if identities, _, err = s.scheduleIdentities(ctx); err != nil {
		return nil, err
	}
	return identities, s.remember(ctx, identities)
}

// checkBeforeEnsure returns an error if streams must not be touched: they are another's, or gone.
func (s *Topology) checkBeforeEnsure(ctx context.Context) error {
	stream, err := s.js.Stream(ctx, s.subjects.RefreshStream())
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound) && !s.nats.ManageStreams:
		return nil // verify reports what is missing
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return s.checkMayCreate(ctx)
	case err != nil:
		return err
	}
	if err := s.checkCase(stream); err != nil || s.nats.AdoptStreams {
		return err
	}
	return s.checkOwner(stream)
}

// checkMayCreate decides whether missing streams may be created.
func (s *Topology) checkMayCreate(ctx context.Context) error {
	known, err := s.state.StreamIdentity(ctx)
	if err != nil || known == "" || s.nats.RecreateStreams {
		return err
	}
	if seen, err := s.canaryExists(ctx); err != nil || seen {
		return err
	}
	if err := s.checkNoOtherWorker(ctx); err != nil {
		return err
	}
	first, err := s.state.SuspectStreams(ctx)
	if err != nil {
		return err
	}
	if !first {
		return fmt.Errorf("%w: another worker is finding out why, or has found that NATS runs with another encryption key; "+
			"if this lasts, restore the key, or set nats.recreate_streams if NATS was really wiped", ErrGone)
	}
	_, err = s.js.CreateStream(ctx, s.canary())
	if refusal := jetstream.JetStreamError(nil); err != nil && !errors.As(err, &refusal) {
		// Only a refusal says something about the key. If the answer was lost, look.
		if seen, lookErr := s.canaryExists(ctx); lookErr != nil || !seen {
			return fmt.Errorf("%w, and whether NATS can create one in their place is not known: %w", ErrGone, errors.Join(err, lookErr))
		}
		err = nil
	}
	if err != nil {
		return fmt.Errorf("%w, and NATS can't create one in their place: it runs with another encryption key than before; restore the key: %w", ErrGone, err)
	}
	return nil
}

// canaryExists reports whether NATS shows the canary, which it can with the encryption key
// under which the canary was created.
func (s *Topology) canaryExists(ctx context.Context) (bool, error) {
	_, err := s.js.Stream(ctx, s.subjects.CanaryStream())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return false, nil
	}
	return err == nil, err
}
