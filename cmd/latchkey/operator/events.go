package operator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
)

// eventView is a lifecycle event as the page shows it.
type eventView struct {
	Kind      string        `json:"kind"`
	At        time.Time     `json:"at"`
	Version   int64         `json:"version"`
	ExpiresAt *time.Time    `json:"expiresAt,omitempty"`
	Reason    events.Reason `json:"reason,omitempty"`
}

const (
	// maxEvents bounds how many events are shown, maxRead how many of the user's events
	// are read to find them, and readBatch how many are read at once.
	maxEvents = 200
	maxRead   = 10_000
	readBatch = 500
	readWait  = 5 * time.Second
)

func (p *Page) grantHistory(r *http.Request) (any, error) {
	g, err := p.find(r)
	if err != nil {
		return nil, err
	}
	found, more, err := p.eventsOf(r.Context(), g.UserID, g.ID)
	if err != nil {
		return nil, err
	}
	return map[string]any{"events": found, "more": more}, nil
}

// eventsOf returns the events about a grant that the stream still holds, newest first.
// more: there are too many to return all.
func (p *Page) eventsOf(ctx context.Context, user, grant string) (found []eventView, more bool, err error) {
	var subjects []string
	for _, kind := range events.LifecycleKinds {
		subjects = append(subjects, p.Subjects.Lifecycle(kind, user))
	}
	stream := p.Subjects.LifecycleStream()
	consumer, err := p.JetStream.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{
		FilterSubjects: subjects, AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1,
		InactiveThreshold: 30 * time.Second, Description: "a look at one user's events",
	})
	if err != nil {
		return nil, false, fmt.Errorf("reading the events of a grant: %w", err)
	}
	defer func() {
		// The server deletes an inactive consumer anyway.
		_ = p.JetStream.DeleteConsumer(context.WithoutCancel(ctx), stream, consumer.CachedInfo().Name)
	}()
	left := int(min(consumer.CachedInfo().NumPending, maxRead))
	more = consumer.CachedInfo().NumPending > maxRead
	found = []eventView{}
	for left > 0 {
		batch, err := consumer.Fetch(min(left, readBatch), jetstream.FetchMaxWait(readWait))
		if err != nil {
			return nil, false, fmt.Errorf("reading the events of a grant: %w", err)
		}
		got := 0
		for msg := range batch.Messages() {
			got++
			if e, err := events.DecodeLifecycle(msg.Data()); err == nil && e.Data.GrantID == grant {
				found = append(found, eventView{Kind: e.Kind, At: e.Time, Version: e.Data.Version, ExpiresAt: e.Data.ExpiresAt, Reason: e.Data.Reason})
			}
		}
		if err := batch.Error(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return nil, false, fmt.Errorf("reading the events of a grant: %w", err)
		}
		if got == 0 {
			break // events were erased meanwhile
		}
		left -= got
	}
	slices.Reverse(found)
	return found[:min(maxEvents, len(found))], more || len(found) > maxEvents, nil
}
