package operator

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store/direct"
	"github.com/latchkey/latchkey/store/streams"
)

// eventView is a lifecycle event as the page shows it.
type eventView struct {
	Kind      string        `json:"kind"`
	At        time.Time     `json:"at"`
	Version   int64         `json:"version"`
	ExpiresAt *time.Time    `json:"expiresAt,omitempty"`
	Reason    events.Reason `json:"reason,omitempty"`
	// Error is Mesh's errorType, where it explains the reason.
	Error string `json:"error,omitempty"`
}

const (
	// maxEvents bounds how many events are shown, and maxRead how many of the user's events
	// are read to find them.
	maxEvents = 200
	maxRead   = 10_000
)

func (p *Page) grantHistory(r *http.Request) (any, error) {
	g, err := p.find(r)
	if err != nil {
		return nil, err
	}
	ctx, stop := p.refusals.watch(r.Context(), p.Subjects.LifecycleStream())
	defer stop()
	found, more, err := p.eventsOf(ctx, g.UserID, g.ID)
	if err != nil {
		return nil, whyNot(ctx, err)
	}
	return map[string]any{"events": found, "more": more}, nil
}

// eventsOf returns the events about a grant that the streams still hold, newest first.
// more: there are too many to return all.
func (p *Page) eventsOf(ctx context.Context, user, grant string) (found []eventView, more bool, err error) {
	held, err := streams.Lifecycle(ctx, p.JetStream, p.Subjects)
	if err != nil {
		return nil, false, fmt.Errorf("reading the events of a grant: %w", err)
	}
	found = []eventView{}
	read := 0
	of := func(jetstream.Stream) direct.Reading { return direct.Reading{Subject: p.Subjects.LifecycleOf(user)} }
	for msg, err := range direct.ReadAll(ctx, p.JetStream, held, of) {
		if err != nil {
			return nil, false, fmt.Errorf("reading the events of a grant: %w", err)
		}
		if read++; read > maxRead {
			more = true
			break
		}
		if e, err := events.DecodeLifecycle(msg.Data); err == nil && e.Data.GrantID == grant {
			found = append(found, eventView{Kind: e.Kind, At: e.Time, Version: e.Data.Version, ExpiresAt: e.Data.ExpiresAt, Reason: e.Data.Reason, Error: e.Data.ErrorType})
		}
	}
	slices.Reverse(found)
	return found[:min(maxEvents, len(found))], more || len(found) > maxEvents, nil
}
