package handlers

import (
	"fmt"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
)

// An answer may leave long after it was made: it waits for the audit log, and
// the process may be stopped meanwhile. So it is looked at again before it
// leaves.

// decide notes when an answer is made, before anything is read for it.
func (a *answer) decide() {
	a.grants.catchUp()
	a.decided, a.change = a.now().Round(0), a.grants.change(a.record.User).Load()
}

// holds reports whether an answer may leave as it is, as far as that can be told
// without reading anything.
func (a *answer) holds() bool {
	now := a.now().Round(0) // the other clock may stand still with the machine
	return (a.ends.IsZero() || now.Before(a.ends)) && now.Sub(a.decided) < max(a.cfg.CacheAge, time.Second) &&
		a.grants.change(a.record.User).Load() == a.change
}

// look reads the user's grants again. The error is a refusal if what would be
// given is not what is stored now.
func (a *answer) look() error {
	changed := refuse(events.CodeBusy, "the tokens changed while the answer waited; ask again")
	if !a.ends.IsZero() && !a.now().Before(a.ends) {
		return changed
	}
	all, err := a.grants.load(a.ctx, a.record.User)
	if err != nil {
		return fmt.Errorf("looking at the tokens again before they are given: %w", err)
	}
	for _, given := range a.record.Grants {
		if given.Code == "" && !a.stands(given, all) {
			return changed
		}
	}
	return nil
}

// stands reports whether tokens that are about to be given are those of a grant
// as it is stored.
func (a *answer) stands(given audit.Grant, all []*store.Grant) bool {
	for _, g := range all {
		if g.ID != given.ID {
			continue
		}
		for _, account := range given.Accounts {
			if g.Account(account) == nil {
				return false
			}
		}
		return g.Version == given.Version && a.valid(g)
	}
	return false
}
