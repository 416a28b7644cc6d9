package refresher

import (
	"fmt"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// Announcer writes what is to be told about a grant into the grant itself, so
// that one write makes both the change and the promise to tell it.
type Announcer struct {
	Subjects events.Subjects
	// Now is the clock, NewID makes the ids of events.
	Now   func() time.Time
	NewID func() string
}

// Announce adds a lifecycle event about the grant as it now is.
func (a Announcer) Announce(g *store.Grant, kind string, reason events.Reason) error {
	e := events.LifecycleEvent{ID: a.NewID(), Kind: kind, Time: store.Milli(a.Now()), Data: g.Lifecycle(reason)}
	out := a.outbox(g)
	data, err := e.EncodeWithin(eventRoom(out))
	if err != nil {
		return fmt.Errorf("announcing grant %s: %w", g.ID, err)
	}
	out.Events = append(out.Events, store.OutboxEvent{ID: e.ID, Subject: a.Subjects.Lifecycle(kind, g.UserID), Data: data})
	return nil
}

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
