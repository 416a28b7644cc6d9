package chaos

import (
	"slices"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
)

// gap is a time in which a grant had no valid access token that reached a worker.
type gap struct{ from, to time.Time }

// announceWithin is how long after the end of its access token a grant may stay unannounced:
// the worker's clock may be behind, a call may be under way, and the reconciler may have to
// find it.
const announceWithin = clockSkew + meshTimeout + reconcileInterval

// sameEnd is how much a worker's and the institution's end of a token may differ: by the
// worker's clock and the time of the call.
const sameEnd = clockSkew + meshTimeout

// judgeGaps finds the times in which an account had no valid access token, and whether an
// event announced that with the end of that token.
func (r *run) judgeGaps(accountID string, family []meshsim.Chain, published []publishedEvent, ledger answers, v *verdict) {
	for _, gap := range gaps(ledger.lives(family, accountID), ledger.At) {
		v.longest(gap.from, gap.to.Sub(gap.from))
		by, judged := r.timeline.ableBy(gap.from, r.patient(announceWithin), gap.to)
		if !judged {
			continue // a token came, or the run ended, before it had to be announced
		}
		announced := slices.ContainsFunc(published, func(e publishedEvent) bool {
			return (e.Kind == events.TokenExpiring || e.Kind == events.TokenExpired) && !e.published.After(by) && names(e.Data, accountID) &&
				e.Data.ExpiresAt != nil && e.Data.ExpiresAt.Sub(gap.from).Abs() <= sameEnd
		})
		if !announced {
			v.count(unannounced, gap.from)
			v.say("account %s (chain %d, %s, %v): no valid access token from %s for %s, and no event by %s", accountID, family[0].ID, family[0].BrokerType,
				family[0].Institution.Dialects, r.since(gap.from), gap.to.Sub(gap.from).Round(100*time.Millisecond), r.since(by))
		}
	}
}

// names reports whether an event is about an account. One without accounts is about all.
func names(about events.Lifecycle, accountID string) bool {
	return len(about.Accounts) == 0 || slices.ContainsFunc(about.Accounts, func(a events.Account) bool { return a.AccountID == accountID })
}

// gaps returns the times until end without any of the lives, if a worker knew when the last
// one ended.
func gaps(lives []life, end time.Time) (out []gap) {
	var until time.Time
	sure := false
	for _, l := range append(slices.Clone(lives), life{from: end}) {
		if !until.IsZero() && l.from.After(until) && sure {
			out = append(out, gap{until, l.from})
		}
		switch {
		case l.to.After(until):
			until, sure = l.to, l.sure
		case l.to.Equal(until):
			sure = sure && l.sure
		}
	}
	return out
}
