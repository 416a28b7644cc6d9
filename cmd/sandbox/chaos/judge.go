package chaos

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// late is how long after its change an event may be published and be no figure.
const late = 5 * time.Second

// judge counts what became of the grants, each thing at its moment.
func (r *run) judge(ctx context.Context) error {
	if err := r.stack.Mesh.Settle(ctx); err != nil {
		return fmt.Errorf("waiting for the simulator: %w", err)
	}
	if err := until(ctx, settleWithin, "the last events", func() error { return r.heard.drain(ctx) }); err != nil {
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
		chain, _ := ledger.Chain(account(i))
		r.judgeGrant(grants, chain, ledger, v)
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
	for _, grant := range r.heard.byGrant {
		for _, e := range grant {
			if e.published.Sub(e.Time) > late && strings.HasPrefix(e.Data.UserID, "user-") {
				v.count(lateEvents, e.Time)
			}
		}
	}
	return r.report(v)
}

func (r *run) judgeReaders(ledger meshsim.Ledger, v *verdict) {
	for _, t := range r.asked.bad {
		if !withinTenth(t, ledger) {
			v.count(badTokens, t.at)
			v.say("a token handed out at %s was not valid: %s", r.since(t.at), t.why)
		}
	}
	for _, at := range r.asked.refused {
		v.count(refused, at)
	}
	for _, at := range r.asked.unanswered {
		v.count(unanswered, at)
	}
	for _, a := range r.waits {
		v.count(waited, a.at)
		v.say("a request for a healthy grant waited for a sick broker at %s: %s", r.since(a.at), a.said())
	}
}

// withinTenth reports whether a token was over for no longer than workers know.
// They stop to hand it out ahead of its end by what clocks may differ, but by no
// more than a tenth of the life that they were told. Where an answer was lost,
// and the next one held the same token again, that life is short.
func withinTenth(t badToken, ledger meshsim.Ledger) bool {
	chain, _ := ledger.ChainOf(t.token)
	i := slices.IndexFunc(chain.Access, func(a meshsim.AccessToken) bool { return a.Fingerprint == meshsim.FingerprintOf(t.token) })
	if i < 0 || !chain.Access[i].KilledAt.IsZero() || chain.Access[i].Interim {
		return false
	}
	a := chain.Access[i]
	told := a.ExpiresAt.Sub(a.IssuedAt)
	for _, q := range ledger.Requests {
		if q.Chain == chain.ID && q.ID >= a.IssuedIn && q.Issued && q.Delivered && q.At.Before(t.sent) && q.At.Before(a.ExpiresAt) {
			told = a.ExpiresAt.Sub(q.At)
		}
	}
	return t.sent.Sub(a.ExpiresAt) < clockSkew-min(clockSkew, told/10)
}

// judgeReuse sorts the refresh tokens that were presented after they were
// replaced.
func (r *run) judgeReuse(ledger meshsim.Ledger, v *verdict) {
	for _, use := range ledger.ReplacedPresented() {
		switch {
		case use.Ambiguous:
			v.count(ambiguous, use.Request.At)
		case r.heldAlone(use.ReplacedIn):
			v.count(reusedInLoss, use.Request.At)
		default:
			v.count(reused, use.Request.At)
			v.say("refresh token of chain %d presented in request %d after it was replaced in request %d", use.Chain, use.Request.ID, use.ReplacedIn.ID)
		}
	}
}

// heldAlone: the worker that received an answer was killed so soon after, or
// suspended so long, that nobody else could know of it.
func (r *run) heldAlone(q meshsim.Request) bool {
	return slices.ContainsFunc(r.losses, func(l loss) bool {
		return l.worker.reached(q) && q.At.Before(l.to) && q.AnsweredAt.After(l.from)
	})
}

// judgeGrant compares a grant at the end with its chain and its events.
func (r *run) judgeGrant(grants []*store.Grant, chain meshsim.Chain, ledger meshsim.Ledger, v *verdict) {
	wrong := func(f figure, at time.Time, format string, args ...any) {
		v.count(f, at)
		v.say("chain %d: "+format, append([]any{chain.ID}, args...)...)
	}
	if !chain.Alive() {
		if chain.DiedIn > 0 && r.chainHeldAlone(chain, ledger) {
			v.count(lostInLoss, chain.DiedAt)
		} else {
			wrong(lost, chain.DiedAt, "%s", chain.DeadBecause)
		}
		return
	}
	if len(grants) != 1 {
		wrong(lost, ledger.At, "%d records", len(grants))
		return
	}
	g := grants[0]
	heard := r.heard.byGrant[g.ID]
	if g.State != store.Active {
		at := ledger.At
		if len(heard) > 0 {
			at = heard[len(heard)-1].Time
		}
		wrong(lost, at, "state %s, reason %s, though alive at the institution", g.State, g.Reason)
		return
	}
	// A grant's versions must all have been told, each once, without a gap.
	told := map[int64]time.Time{}
	for _, e := range heard {
		switch e.Kind {
		case events.TokenStored, events.TokenRefreshed:
			if _, twice := told[e.Data.Version]; twice {
				wrong(contradicting, e.Time, "version %d told twice", e.Data.Version)
			}
			told[e.Data.Version] = e.Time
		case events.TokenExpired, events.TokenRevoked:
			wrong(contradicting, e.Time, "%s told, though alive", e.Kind)
		}
	}
	at := chain.ConnectedAt
	for version := int64(1); version <= g.Version; version++ {
		if told[version].IsZero() {
			wrong(missing, at, "version %d of %d not told", version, g.Version)
		} else {
			at = told[version]
		}
	}
	if len(told) > int(g.Version) {
		wrong(contradicting, ledger.At, "%d versions told, %d stored", len(told), g.Version)
	}
	r.judgeGaps(g, chain, ledger, heard, v)
}

func (r *run) chainHeldAlone(chain meshsim.Chain, ledger meshsim.Ledger) bool {
	return slices.ContainsFunc(ledger.Requests, func(q meshsim.Request) bool {
		return q.Chain == chain.ID && q.Rotated && r.heldAlone(q)
	})
}
