package chaos

import (
	"slices"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// gap is a time in which a grant had no valid access token, as far as answers
// reached a worker.
type gap struct{ from, to time.Time }

// announceWithin is how long after the end of its access token a grant may stay
// unannounced: the worker's clock may be behind, a call may be under way, and the
// reconciler may have to come round.
const announceWithin = clockSkew + meshTimeout + reconcileInterval

// sameEnd is how much the end of a token that a worker tells may differ from the
// institution's: by the worker's clock, and by the time of the call.
const sameEnd = clockSkew + meshTimeout

// judgeGaps finds the times in which a grant had no valid access token, and
// whether that was announced: by an event that names the end of the token that
// ended.
func (r *run) judgeGaps(g *store.Grant, chain meshsim.Chain, ledger meshsim.Ledger, heard []heardEvent, v *verdict) {
	for _, gap := range gaps(chain, ledger) {
		v.longest(gap.from, gap.to.Sub(gap.from))
		by, judged := r.timeline.ableBy(gap.from, announceWithin, gap.to)
		if !judged {
			continue // a token came, or the run ended, before it had to be announced
		}
		announced := slices.ContainsFunc(heard, func(e heardEvent) bool {
			return (e.Kind == events.TokenExpiring || e.Kind == events.TokenExpired) && !e.published.After(by) &&
				e.Data.ExpiresAt != nil && e.Data.ExpiresAt.Sub(gap.from).Abs() <= sameEnd
		})
		if !announced {
			v.count(unannounced, gap.from)
			v.say("chain %d (%s, grant %s): no valid access token from %s for %s, and no event by %s", chain.ID, chain.BrokerType, g.ID,
				r.since(gap.from), gap.to.Sub(gap.from).Round(100*time.Millisecond), r.since(by))
		}
	}
}

// gaps returns the times in which no access token of a chain was valid that a
// worker had.
func gaps(chain meshsim.Chain, ledger meshsim.Ledger) []gap {
	type life struct{ from, to time.Time }
	var lives []life
	for _, t := range chain.Access {
		if from, ok := heldFrom(chain, t, ledger); ok && !t.Interim {
			lives = append(lives, life{from, t.ExpiresAt})
		}
	}
	slices.SortFunc(lives, func(a, b life) int { return a.from.Compare(b.from) })
	var out []gap
	var until time.Time
	for _, l := range lives {
		if !until.IsZero() && l.from.After(until) {
			out = append(out, gap{until, l.from})
		}
		if l.to.After(until) {
			until = l.to
		}
	}
	if ledger.At.After(until) {
		out = append(out, gap{until, ledger.At})
	}
	return out
}

// heldFrom is when a worker received an access token: with the answer that first
// held it, or a later one of the chain that held it again.
func heldFrom(chain meshsim.Chain, t meshsim.AccessToken, ledger meshsim.Ledger) (time.Time, bool) {
	if t.IssuedIn == 0 {
		return t.IssuedAt, true
	}
	for _, q := range ledger.Requests[t.IssuedIn-1:] {
		if q.AnsweredAt.After(t.ExpiresAt) {
			break
		}
		if q.Chain == chain.ID && q.Issued && q.Delivered {
			return q.AnsweredAt, true
		}
	}
	return time.Time{}, false
}
