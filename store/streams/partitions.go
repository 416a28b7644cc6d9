package streams

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// Identities restores missing streams, and returns what Ensure returns. If a schedule
// stream is missing, it calls Ensure. If NATS shows all of these, it has its encryption
// key, so that other streams can be created without destroying hidden ones.
func (s *Topology) Identities(ctx context.Context) ([]string, error) {
	if !s.nats.ManageStreams {
		return s.Ensure(ctx) // which makes nothing
	}
	if err := s.claim(ctx); err != nil {
		return nil, err
	}
	identities, unmarked, err := s.scheduleIdentities(ctx)
	if errors.Is(err, jetstream.ErrStreamNotFound) || err == nil && unmarked {
		return s.Ensure(ctx)
	}
	if err != nil {
		return nil, err
	}
	if err := s.remember(ctx, identities); err != nil {
		return nil, err
	}
	for _, c := range s.otherStreams() {
		if err := s.restore(ctx, c); err != nil && ctx.Err() == nil {
			s.log.Warn("a stream is missing; the next pass checks again", zap.Error(err))
		}
	}
	return identities, nil
}

// restore creates a stream that was removed while workers run. Its readers create its
// consumers. One that takes or passes on other subjects, or that hides its partitions, would
// lose messages on the way to their readers: a worker with another number of partitions has
// started since, and may be gone, or somebody edited the stream.
func (s *Topology) restore(ctx context.Context, c jetstream.StreamConfig) error {
	stream, err := s.js.Stream(ctx, c.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s.log.Error("a stream was removed; creating it again, empty", zap.String("stream", c.Name))
		return s.ensure(ctx, c)
	}
	if err != nil {
		return fmt.Errorf("ensuring stream %s: %w", c.Name, err)
	}
	if _, differ := s.withOwned(c, stream.CachedInfo().Config); slices.ContainsFunc(differ, Difference.routes) {
		s.log.Warn("messages can't find their way through a stream; it gets its settings again", zap.String("stream", c.Name), zap.Stringer("differs", differ))
		return s.ensure(ctx, c)
	}
	return nil
}

// scheduleIdentities returns the identities of the schedule streams. unmarked: one does not name its
// installation, since a worker of an older version has updated it. A stream that is
// unavailable counts as the one seen last, as long as others are available.
func (s *Topology) scheduleIdentities(ctx context.Context) (identities []string, unmarked bool, err error) {
	var away error
	last := *s.lastIdentities.Load()
	found := 0
	for n, p := range s.subjects.RefreshPartitions() {
		stream, err := s.js.Stream(ctx, p.Stream)
		if err == nil {
			err = s.checkOwner(stream)
		}
		if err != nil {
			err = fmt.Errorf("inspecting the stream of schedules %s: %w", p.Stream, err)
		}
		if n < len(last) && Unavailable(err) && !errors.Is(err, jetstream.ErrStreamNotFound) && ctx.Err() == nil {
			away, identities = errors.Join(away, err), append(identities, last[n])
			continue
		}
		if err != nil {
			return nil, false, err
		}
		found++
		unmarked = unmarked || stream.CachedInfo().Config.Metadata[installationKey] == ""
		identities = append(identities, identityOf(n, stream))
	}
	if found == 0 {
		return nil, false, away
	}
	if away != nil {
		s.log.Warn("a stream is missing; the next pass checks again", zap.Error(away))
	}
	s.streamsSeen.Store(true)
	s.lastIdentities.Store(&identities)
	return identities, unmarked, nil
}

// identityOf identifies a stream by its partition and the time of its creation.
func identityOf(partition int, stream jetstream.Stream) string {
	made := stream.CachedInfo().Created.UTC().Format(time.RFC3339Nano)
	if partition == 0 {
		return made
	}
	return strconv.Itoa(partition) + "/" + made
}

// remember stores the identities of the streams outside of NATS. A stream whose identity
// has changed was lost; their number may have changed too.
func (s *Topology) remember(ctx context.Context, identities []string) error {
	now := strings.Join(identities, ",")
	known, err := s.state.StreamIdentity(ctx)
	if err != nil {
		return err
	}
	if known == now {
		return s.state.RecordStreamsSeen(ctx, now, time.Now())
	}
	var lost []string
	for n, before := range strings.Split(known, ",") {
		if before != "" && n < len(identities) && before != identities[n] {
			lost = append(lost, s.subjects.RefreshPartitions()[n].Stream)
		}
	}
	if len(lost) > 0 {
		s.log.Error("NATS was wiped or restored: the streams are new. Their schedules are made again; other messages in them are lost",
			zap.Strings("streams", lost))
	}
	return s.state.RememberStream(ctx, now)
}
