package tokens

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
)

// An answer may leave long after it was made: it waits for the audit log, and the
// process may be suspended meanwhile. So it is checked again before it leaves.

// upToDate reports whether an answer may leave as it is, without reading anything.
func (a *answer) upToDate() bool { return !a.ended() && a.grants.holds(a.record.User, a.from) }

// ended reports whether a token of the answer has.
func (a *answer) ended() bool { return !a.ends.IsZero() && !a.opts.Now().Before(a.ends) }

// recheck reads the user's grants again. The error is a refusal if they differ from what is
// about to be handed out.
func (a *answer) recheck() error {
	changed := refuse(events.CodeBusy, "the tokens changed while the answer waited; ask again")
	if a.ended() {
		return changed
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), a.opts.Config.Timeout) // waiting may have used up the request's time
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

// isCurrent reports whether tokens that are about to be handed out are those stored now. A
// user who disconnects and connects again may have a grant of the same id and version, but no
// two sealed token sets are alike.
func (a *answer) isCurrent(given audit.Grant, all []*store.Grant) bool {
	return slices.ContainsFunc(all, func(g *store.Grant) bool {
		return g.ID == given.ID && a.valid(g) &&
			slices.ContainsFunc(a.opened, func(was *store.Grant) bool { return was.ID == g.ID && bytes.Equal(was.Sealed.Data, g.Sealed.Data) }) &&
			!slices.ContainsFunc(given.Accounts, func(id string) bool { return g.Account(id) == nil })
	})
}
