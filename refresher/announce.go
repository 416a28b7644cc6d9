package refresher

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// Announcer writes what is to be told about a grant into the grant itself, so
// that one write makes both the change and the promise to tell it.
type Announcer struct {
	Subjects events.Subjects
	// Now is the clock, NewID makes the ids of events that have none by nature.
	Now   func() time.Time
	NewID func() string
}

// Announce adds a lifecycle event about the grant as it now is.
func (a Announcer) Announce(g *store.Grant, kind string, reason events.Reason) error {
	e := events.LifecycleEvent{ID: a.id(g, kind), Kind: kind, Time: store.Milli(a.Now()), Data: g.Lifecycle(reason)}
	data, err := e.Encode()
	if err != nil {
		return fmt.Errorf("announcing grant %s: %w", g.ID, err)
	}
	out := a.outbox(g)
	out.Events = append(out.Events, store.OutboxEvent{ID: e.ID, Subject: a.Subjects.Lifecycle(kind, g.UserID), Data: data})
	return nil
}

// id names an event. The event of a version has the same id whoever tells it,
// and however often: NATS and subscribers drop repetitions.
func (a Announcer) id(g *store.Grant, kind string) string {
	if kind != events.TokenStored && kind != events.TokenRefreshed {
		return a.NewID()
	}
	return uuid.NewSHA1(versions, fmt.Appendf(nil, "%s %d %d", g.ID, g.Born.UnixMilli(), g.Version)).String()
}

// versions is the namespace of the ids of events about versions.
var versions = uuid.MustParse("6f0d4d0e-7f3b-4f0a-9d52-0d3a3c1f7b61")

// Schedule sets the grant's next action, nil for none.
func (a Announcer) Schedule(g *store.Grant, due *store.Due) {
	g.Due = due
	a.outbox(g).Schedule = true
}

func (a Announcer) outbox(g *store.Grant) *store.Outbox {
	if g.Outbox == nil {
		g.Outbox = &store.Outbox{Since: store.Milli(a.Now())}
	}
	return g.Outbox
}
