package tokens

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
)

// An answer may leave long after it was made: it waits for the audit log, and the
// process may be suspended meanwhile. So it is checked again before it leaves.

// noteDecision records when an answer is made, before anything is read for it.
func (a *answer) noteDecision() {
	a.grants.catchUp()
	a.decided, a.change = a.opts.Now().Round(0), a.grants.changeCounter(a.record.User).Load()
}

// upToDate reports whether an answer may leave as it is, without reading anything.
func (a *answer) upToDate() bool {
	now := a.opts.Now().Round(0) // the monotonic clock may stop with the machine
	return (a.ends.IsZero() || now.Before(a.ends)) && now.Sub(a.decided) < max(a.opts.Config.CacheAge, time.Second) &&
		a.grants.changeCounter(a.record.User).Load() == a.change
}

// recheck reads the user's grants again. The error is a refusal if they differ from what is
// about to be handed out.
func (a *answer) recheck() error {
	changed := refuse(events.CodeBusy, "the tokens changed while the answer waited; ask again")
	if !a.ends.IsZero() && !a.opts.Now().Before(a.ends) {
		return changed
	}
	ctx, cancel := context.WithTimeout(a.ctx, a.opts.Config.Timeout)
	defer cancel()
	all, err := a.grants.load(ctx, a.record.User)
	if err != nil {
		return fmt.Errorf("checking the tokens again before they are handed out: %w", err)
	}
	for _, given := range a.record.Grants {
		if given.Code == "" && !a.isCurrent(given, all) {
			return changed
		}
	}
	return nil
}

// isCurrent reports whether tokens that are about to be handed out are those stored now.
func (a *answer) isCurrent(given audit.Grant, all []*store.Grant) bool {
	return slices.ContainsFunc(all, func(g *store.Grant) bool {
		return g.ID == given.ID && g.Version == given.Version && a.valid(g) &&
			!slices.ContainsFunc(given.Accounts, func(id string) bool { return g.Account(id) == nil })
	})
}
