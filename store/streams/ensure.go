package streams

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// ensure makes a stream, or brings what Latchkey owns of it up to the configuration.
func (s *Topology) ensure(ctx context.Context, want jetstream.StreamConfig) error {
	for attempt := 1; ; attempt++ {
		stream, err := s.js.Stream(ctx, want.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			err = s.bounded(ctx, want, 0, func(c jetstream.StreamConfig) error {
				_, err := s.js.CreateStream(ctx, c)
				return err
			})
			if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) && attempt < 3 {
				continue // another worker was quicker
			}
			if err != nil {
				return fmt.Errorf("making stream %s: %w", want.Name, err)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("ensuring stream %s: %w", want.Name, err)
		}
		info := stream.CachedInfo()
		owned, differ := s.withOwned(want, info.Config)
		if len(differ) == 0 {
			return nil
		}
		update := func(c jetstream.StreamConfig) error {
			_, err := s.js.UpdateStream(ctx, c)
			return err
		}
		if info.Config.MaxBytes > 0 {
			err = update(owned)
		} else {
			err = s.bounded(ctx, owned, int64(info.State.Bytes), update)
		}
		if err != nil {
			return fmt.Errorf("ensuring stream %s (%s): %w", want.Name, differ, err)
		}
		return nil
	}
}

// ensureConsumer makes a durable consumer, or brings what Latchkey owns of it up to the
// configuration. Who keeps the streams keeps the consumers that are there too.
func (s *Topology) ensureConsumer(ctx context.Context, stream string, want jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	for attempt := 1; ; attempt++ {
		c, err := s.js.Consumer(ctx, stream, want.Durable)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			c, err = s.js.CreateConsumer(ctx, stream, want)
			if errors.Is(err, jetstream.ErrConsumerExists) && attempt < 3 {
				continue // another worker was quicker
			}
		}
		if err != nil {
			return nil, err
		}
		owned, differ := s.consumerWithOwned(want, c.CachedInfo().Config)
		if !s.nats.ManageStreams {
			if needed := differ.needed(); len(needed) > 0 {
				return nil, fmt.Errorf("%w: consumer %s of %s: %s", ErrUnfit, want.Durable, stream, needed)
			}
			return c, nil
		}
		if len(differ) == 0 {
			return c, nil
		}
		if c, err = s.js.UpdateConsumer(ctx, stream, owned); err != nil {
			return nil, fmt.Errorf("%w (%s)", err, differ)
		}
		return c, nil
	}
}

// lifecycleBytes bounds the events where nobody set another limit, some ten million; their
// streams share it. leastLifecycleBytes is the smallest bound worth having.
const (
	lifecycleBytes      = 8 << 30
	leastLifecycleBytes = 1 << 20
)

// JetStream's error codes for more bytes than can be reserved.
const (
	noSuitablePeers    jetstream.ErrorCode = 10005
	insufficient       jetstream.ErrorCode = 10023
	storageExceeded    jetstream.ErrorCode = 10047
	streamBytesExceeds jetstream.ErrorCode = 10122
)

// bounded makes or updates a stream of events with a byte limit that leaves room for
// others, above all for answers that wait for the database: events take at most half of what
// the account may store, and less where NATS can't reserve that much. stored is what the
// stream has already; none of it is given up.
func (s *Topology) bounded(ctx context.Context, c jetstream.StreamConfig, stored int64, do func(jetstream.StreamConfig) error) error {
	if c.MaxBytes <= 0 {
		return do(c)
	}
	c.MaxBytes = max(c.MaxBytes, 2*stored)
	if most, err := s.accountBytes(ctx, c.Replicas); err == nil && most > 0 {
		c.MaxBytes = min(c.MaxBytes, most/2/int64(len(s.subjects.LifecyclePartitions())))
	}
	least := max(stored, leastLifecycleBytes)
	if stored > c.MaxBytes {
		s.log.Warn("events may take more than half of what the account may store, and may leave no room for others: set a lower max_bytes, which removes the oldest (docs/streams.md)", zap.String("stream", c.Name))
	}
	c.MaxBytes = max(c.MaxBytes, least)
	for {
		err := do(c)
		if !unreservable(err) {
			return err
		}
		if c.MaxBytes == least {
			s.log.Warn("NATS can't reserve storage for a stream of events: it has no byte limit, and may leave no room for others", zap.String("stream", c.Name), zap.Error(err))
			c.MaxBytes = -1
			return do(c)
		}
		c.MaxBytes = max(c.MaxBytes/4, least)
	}
}

func unreservable(err error) bool {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode {
	case noSuitablePeers, insufficient, storageExceeded, streamBytesExceeds, accountResources:
		return true
	}
	return false
}

// accountBytes is what the account may store in streams with so many replicas; 0: as
// much as it likes.
func (s *Topology) accountBytes(ctx context.Context, replicas int) (int64, error) {
	info, err := s.js.AccountInfo(ctx)
	if err != nil {
		return 0, fmt.Errorf("asking for the account's limits: %w", err)
	}
	if tier, found := info.Tiers[fmt.Sprintf("R%d", replicas)]; found {
		return max(tier.Limits.MaxStore, 0), nil
	}
	return max(info.Limits.MaxStore, 0) / int64(max(replicas, 1)), nil
}
