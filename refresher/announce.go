package refresher

import (
	"fmt"
	"slices"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// announcer writes the events about a grant into its outbox, so that one write stores
// both the change and the promise to announce it.
type announcer struct {
	Subjects events.Subjects
	Now      func() time.Time
	NewID    func() string // makes the ids of events
	Source   string        // events.SourceOf the installation
}

// Announce adds a lifecycle event about the grant as it now is. It names the
// accounts that it is true of.
func (a announcer) Announce(g *store.Grant, kind string, reason events.Reason) error {
	return a.announce(g, kind, g.LifecycleOf(affectedAccounts(g, kind, reason), reason))
}

// affectedAccounts returns the accounts that an event is true of. An event about the newest
// access tokens leaves out accounts that have older ones, or none; the end of a grant
// leaves out accounts whose own end was announced before, if there are others.
func affectedAccounts(g *store.Grant, kind string, reason events.Reason) []store.Account {
	newest := kind == events.TokenRefreshed ||
		kind == events.TokenExpiring && (reason == events.ReasonRefreshFailing || reason == events.ReasonNoRefreshToken)
	left := slices.DeleteFunc(slices.Clone(g.Accounts), func(account store.Account) bool {
		if kind == events.TokenExpired {
			life := g.AccessOf(account)
			return life != nil && life.EndAnnounced
		}
		return newest && !g.Newest(account)
	})
	if len(left) == 0 { // an earlier release did not write the ends of single accounts
		return g.Accounts
	}
	return left
}

func (a announcer) announce(g *store.Grant, kind string, about events.Lifecycle) error {
	e := events.LifecycleEvent{ID: a.NewID(), Kind: kind, Source: a.Source, Time: store.Milli(a.Now()), Data: about}
	out := outbox(g, e.Time)
	data, err := e.EncodeWithin(eventRoom(out))
	if err != nil {
		return fmt.Errorf("announcing grant %s: %w", g.ID, err)
	}
	out.Events = append(out.Events, store.OutboxEvent{ID: e.ID, Subject: a.Subjects.Lifecycle(kind, g.UserID), Data: data})
	return nil
}

// Schedule sets the grant's next action, nil for none. One that is decided on after its
// time is due now: nobody could do it earlier, so it is not late.
func (a announcer) Schedule(g *store.Grant, due *store.Due) { schedule(g, due, a.Now()) }

func schedule(g *store.Grant, due *store.Due, now time.Time) {
	if now := store.Milli(now); due != nil && due != g.Due && due.At.Before(now) {
		due.At = now
	}
	g.Due = due
	outbox(g, now).Schedule = true
}

func outbox(g *store.Grant, now time.Time) *store.Outbox {
	if g.Outbox == nil {
		g.Outbox = &store.Outbox{Since: store.Milli(now)}
	}
	return g.Outbox
}
