package chaos

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
)

// late is how long after its change an event may be published without being counted.
const late = 5 * time.Second

// judge counts faults and other figures, each at its moment.
func (r *run) judge(ctx context.Context) error {
	if err := r.stack.Mesh.WaitIdle(ctx); err != nil {
		return fmt.Errorf("waiting for the simulator: %w", err)
	}
	if err := until(ctx, settleWithin, "the last events", func() error { return r.listener.drain(ctx) }); err != nil {
		return err
	}
	ledger := r.stack.Mesh.Ledger()
	v := &verdict{timeline: &r.timeline, effects: make([]effects, len(r.timeline.episodes))}
	r.judgeReuse(ledger, v)
	for i := range r.Grants {
		grants, err := r.db.ByUser(ctx, user(i))
		if err != nil {
			return err
		}
		r.judgeUser(i, grants, answers{ledger}, v)
	}
	for i := range wallets {
		grants, err := r.db.ByUser(ctx, wallet(i))
		if err != nil {
			return err
		}
		if len(grants) > 0 {
			v.count(contradicting, ledger.At)
			v.say("%s has %d grants, and connected without a token", wallet(i), len(grants))
		}
	}
	for _, q := range ledger.Requests {
		if q.Operation == meshsim.OpRefresh {
			v.count(calls, q.At)
		}
		if q.Issued {
			v.count(issued, q.At)
		}
	}
	r.judgeReaders(ledger, v)
	for _, again := range r.repeats {
		v.add(repeated, again.at, again.n)
		v.say("refresh tokens were presented %d times beyond the calls of a worker", again.n)
	}
	r.judgeJunk(v, ledger.At)
	for _, grant := range r.listener.byGrant {
		for _, e := range grant {
			if e.published.Sub(e.Time) > late && strings.HasPrefix(e.Data.UserID, "user-") {
				v.count(lateEvents, e.Time)
			}
		}
	}
	return r.report(v)
}

func (r *run) judgeReaders(ledger meshsim.Ledger, v *verdict) {
	for _, t := range r.readers.bad {
		if !isExcused(t, answers{ledger}) {
			v.count(badTokens, t.at)
			v.say("a token handed out at %s was not valid: %s", r.since(t.at), t.why)
		}
	}
	for _, at := range r.readers.refused {
		v.count(refused, at)
	}
	for _, at := range r.readers.unanswered {
		v.count(unanswered, at)
	}
	for _, a := range r.waits {
		v.count(waited, a.at)
		v.say("a request for a healthy grant waited for a sick broker at %s: %s", r.since(a.at), a.describe())
	}
}

// replaced is the ledger's reason for the end of an access token that a newer one replaced.
const replaced = "replaced"

// isExcused reports whether a worker could not know that a token was not valid.
func isExcused(t badToken, a answers) bool {
	chain, _ := a.ChainOf(t.token)
	i := slices.IndexFunc(chain.Access, func(x meshsim.AccessToken) bool { return x.Fingerprint == meshsim.FingerprintOf(t.token) })
	if i < 0 || chain.Access[i].Interim {
		return false
	}
	token := chain.Access[i]
	switch {
	case t.reported: // its successor was stored, if an answer brings one for each account
		return speaks(chain, "oneAccountAtATime", "deprecatedFields")
	case token.KilledWhy == meshsim.DeadByFault: // until its end, or a report
		return token.ExpiresAt.IsZero() || t.sent.Before(token.ExpiresAt) || !a.knew(chain, token, t.sent)
	case !token.KilledAt.IsZero() && token.KilledWhy != replaced:
		return false
	case !token.KilledAt.IsZero():
		return !a.delivered(chain, token.KilledAt, t.known)
	}
	return !a.knew(chain, token, t.sent) || withinTenth(chain, token, t.sent, a)
}

// delivered reports whether the answer that ended a chain's earlier access tokens reached a
// worker before a moment.
func (a answers) delivered(c meshsim.Chain, killed, before time.Time) bool {
	return slices.ContainsFunc(c.Access, func(t meshsim.AccessToken) bool {
		return !t.IssuedAt.Before(killed) && slices.ContainsFunc(a.answersWith(c, t), func(q meshsim.Request) bool {
			return q.Delivered && !ownerless(c, q) && q.AnsweredAt.Before(before)
		})
	})
}

// withinTenth reports whether a token had expired for so short a time that a worker may still
// hand it out. Workers stop before its end by what clocks may differ, but by no more than a
// tenth of the lifetime in the answer. That is short where an answer was lost and the next
// one held the same token.
func withinTenth(chain meshsim.Chain, token meshsim.AccessToken, sent time.Time, a answers) bool {
	lifetime := token.ExpiresAt.Sub(token.IssuedAt)
	for _, q := range a.answersWith(chain, token) {
		if q.Delivered && q.At.Before(sent) && q.At.Before(token.ExpiresAt) {
			lifetime = token.ExpiresAt.Sub(q.At)
		}
	}
	return sent.Sub(token.ExpiresAt) < clockSkew-min(clockSkew, lifetime/10)
}

// judgeReuse classifies refresh tokens that were presented after they were replaced.
func (r *run) judgeReuse(ledger meshsim.Ledger, v *verdict) {
	for _, use := range ledger.ReplacedPresented() {
		switch {
		case use.Ambiguous:
			v.count(ambiguous, use.Request.At)
		case r.soleHolder(use.ReplacedIn):
			v.count(reusedInLoss, use.Request.At)
		default:
			v.count(reused, use.Request.At)
			v.say("refresh token of chain %d presented in request %d after it was replaced in request %d", use.Chain, use.Request.ID, use.ReplacedIn.ID)
		}
	}
}

// soleHolder reports whether the worker that received an answer was killed so soon after, or
// suspended for so long, that no other worker could know of it.
func (r *run) soleHolder(q meshsim.Request) bool {
	return slices.ContainsFunc(r.losses, func(l loss) bool {
		return l.worker.serves(q) && q.At.Before(l.to) && q.AnsweredAt.After(l.from)
	})
}
