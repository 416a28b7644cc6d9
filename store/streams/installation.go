package streams

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events/pause"
	"github.com/latchkey/latchkey/store"
)

// installationKey is the name in a stream's metadata under which the identity of
// its installation stands.
const installationKey = "latchkey-installation"

// ErrOtherInstallation: database and streams belong to different installations, or to
// one with another prefix. Their grants must not be mixed.
var ErrOtherInstallation = errors.New("another installation's")

const adoptAdvice = "check mongodb.uri, mongodb.database, nats.url and nats.prefix; " +
	"if they are right, because the database or NATS was replaced on purpose, set nats.adopt_streams for one start (docs/procedures.md, Another installation)"

// Installations stores to which installation the database belongs.
type Installations interface {
	Installation(ctx context.Context) (store.Installation, error)
	ClaimInstallation(ctx context.Context, i store.Installation) (store.Installation, error)
	Rename(ctx context.Context, prefix string) error
}

// claim claims the database for this installation, and keeps its identity.
func (s *Topology) claim(ctx context.Context) error {
	is, err := s.state.Installation(ctx)
	if errors.Is(err, store.ErrNotFound) {
		if s.installation.Load() == nil { // at the first start, or the database would be of a prefix that can't be used
			if err := s.checkPrefix(ctx); err != nil {
				return err
			}
		}
		is, err = s.state.ClaimInstallation(ctx, store.Installation{ID: uuid.NewString(), Prefix: s.nats.Prefix})
	}
	if err != nil {
		return err
	}
	if is.Prefix != s.nats.Prefix {
		if !s.nats.AdoptStreams || strings.EqualFold(is.Prefix, s.nats.Prefix) {
			return otherPrefix(is, s.nats.Prefix)
		}
		if err := s.state.Rename(ctx, s.nats.Prefix); err != nil {
			return err
		}
	}
	s.installation.Store(&is.ID)
	return nil
}

// CheckInstallation returns an error if the database, or the streams if there are any,
// belong to another installation than that of the configuration. It changes nothing.
func (s *Topology) CheckInstallation(ctx context.Context) (store.Installation, error) {
	is, err := installationOf(ctx, s.state, s.nats.Prefix)
	if err != nil {
		return is, err
	}
	stream, err := s.js.Stream(ctx, s.subjects.RefreshStream())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return is, nil
	}
	if err != nil {
		return is, fmt.Errorf("inspecting stream %s: %w", s.subjects.RefreshStream(), err)
	}
	if err := s.checkCase(stream); err != nil {
		return is, err
	}
	return is, checkOwner(stream, is.ID)
}

// checkPrefix is checkCase for the stream that may be there.
func (s *Topology) checkPrefix(ctx context.Context) error {
	stream, err := s.js.Stream(ctx, s.subjects.RefreshStream())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("inspecting stream %s: %w", s.subjects.RefreshStream(), err)
	}
	return s.checkCase(stream)
}

// checkCase returns an error if a stream belongs to a prefix that differs from that of
// the configuration in upper and lower case alone: the names of their streams are the same.
func (s *Topology) checkCase(stream jetstream.Stream) error {
	for _, subject := range stream.CachedInfo().Config.Subjects {
		if prefix, _, _ := strings.Cut(subject, "."); s.nats.Prefix != "" && prefix != s.nats.Prefix && strings.EqualFold(prefix, s.nats.Prefix) {
			return fmt.Errorf("stream %s in NATS is %w: %s", stream.CachedInfo().Config.Name, ErrOtherInstallation, caseAlone(prefix, s.nats.Prefix))
		}
	}
	return nil
}

func caseAlone(theirs, ours string) string {
	return fmt.Sprintf("its nats.prefix is %q, that of the configuration %q, and prefixes that differ only in case would share their streams; choose another prefix", theirs, ours)
}

// CheckPrefix is CheckInstallation without NATS.
func CheckPrefix(ctx context.Context, memory Installations, prefix string) error {
	_, err := installationOf(ctx, memory, prefix)
	return err
}

// installationOf returns the installation that owns the database; zero: there is none
// before a worker's first start.
func installationOf(ctx context.Context, memory Installations, prefix string) (store.Installation, error) {
	is, err := memory.Installation(ctx)
	switch {
	case errors.Is(err, store.ErrNotFound):
		err = nil
	case err == nil && is.Prefix != prefix:
		err = otherPrefix(is, prefix)
	}
	return is, err
}

func otherPrefix(is store.Installation, prefix string) error {
	if strings.EqualFold(is.Prefix, prefix) {
		return fmt.Errorf("the database is %w: %s", ErrOtherInstallation, caseAlone(is.Prefix, prefix))
	}
	return fmt.Errorf("the database is %w: its nats.prefix is %q, that of the configuration %q; %s", ErrOtherInstallation, is.Prefix, prefix, adoptAdvice)
}

// checkOwner returns an error if a stream belongs to another installation. Streams of
// early releases name none.
func (s *Topology) checkOwner(stream jetstream.Stream) error {
	id := s.installation.Load()
	if id == nil {
		return nil
	}
	return checkOwner(stream, *id)
}

func checkOwner(stream jetstream.Stream, id string) error {
	info := stream.CachedInfo()
	if owner := info.Config.Metadata[installationKey]; owner != "" && owner != id {
		return fmt.Errorf("stream %s in NATS is %w: it belongs to %s, the database to %s; %s", info.Config.Name, ErrOtherInstallation, owner, cmp.Or(id, "none"), adoptAdvice)
	}
	return nil
}

// seenFor is how many intervals of reconciliation may pass until a running worker sees
// the streams again. No start waits longer than maxSeenFor.
const (
	seenFor    = 2
	maxSeenFor = 2 * time.Minute
)

// checkNoOtherWorker returns an error if another worker sees the streams that are missing here:
// then they are in another NATS, and this one is the wrong one. If a worker saw them
// lately, checkNoOtherWorker waits until it would have seen them again. A worker that has seen
// them itself knows that its NATS is the right one.
func (s *Topology) checkNoOtherWorker(ctx context.Context) error {
	last, err := s.state.StreamsSeen(ctx)
	wait := min(seenFor*s.interval, maxSeenFor)
	if err != nil || s.nats.AdoptStreams || s.streamsSeen.Load() || time.Since(last) > 2*wait {
		return err
	}
	s.log.Warn("the streams that the database remembers are not in NATS, and a worker saw them lately: waiting whether it sees them still", zap.Time("seen", last))
	until := time.Now().Add(wait)
	for time.Now().Before(until) {
		if err := pause.For(ctx, wait/20); err != nil {
			return err
		}
		now, err := s.state.StreamsSeen(ctx)
		if err != nil {
			return err
		}
		_, err = s.js.Stream(ctx, s.subjects.RefreshStream())
		if err == nil {
			return nil // made again by another
		}
		if now.After(last) {
			return fmt.Errorf("the database is %w: other workers see its streams, in another NATS than nats.url; %s", ErrOtherInstallation, adoptAdvice)
		}
	}
	return nil
}
