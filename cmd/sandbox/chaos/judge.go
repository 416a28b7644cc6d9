package chaos

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// heldBefore is how long before a kill an answer may have arrived that the
// killed process alone held: the time until the database or the recovery
// stream has it.
const heldBefore = 5 * time.Second

// verdict is what the judge counts. The figures of the first group must be 0.
type verdict struct {
	lost, lostInKill       int // grants dead at the end; with an answer that a killed process alone held
	reused, reusedInKill   int // replaced refresh tokens presented without a lost answer; likewise
	missing, contradicting int // events
	badTokens              map[string]int
	wrongAtEnd             []string

	ambiguous     int // replaced refresh tokens presented because their answer was lost
	longest       time.Duration
	calls, issued int
}

func (r *run) judge(ctx context.Context) error {
	if err := r.stack.Mesh.Settle(ctx); err != nil {
		return fmt.Errorf("waiting for the simulator: %w", err)
	}
	if err := until(ctx, settleWithin, "the last events", func() error { return r.heard.drain(ctx) }); err != nil {
		return err
	}
	ledger := r.stack.Mesh.Ledger()
	v := verdict{badTokens: r.asked.bad}
	r.judgeReuse(ledger, &v)
	for i := range r.Grants {
		grants, err := r.db.ByUser(ctx, user(i))
		if err != nil {
			return err
		}
		chain, _ := ledger.Chain(account(i))
		r.judgeGrant(grants, chain, ledger, &v)
	}
	for _, q := range ledger.Requests {
		if q.Operation == meshsim.OpRefresh {
			v.calls++
		}
		if q.Issued {
			v.issued++
		}
	}
	return r.report(v)
}

// judgeReuse sorts the refresh tokens that were presented after they were
// replaced.
func (r *run) judgeReuse(ledger meshsim.Ledger, v *verdict) {
	for _, use := range ledger.ReplacedPresented() {
		switch {
		case use.Ambiguous:
			v.ambiguous++
		case r.heldByKilled(use.ReplacedIn):
			v.reusedInKill++
		default:
			v.reused++
			r.say("refresh token of chain %d presented after it was replaced in request %d", use.Chain, use.ReplacedIn.ID)
		}
	}
}

// heldByKilled: a kill came so soon after the answer that its receiver may have
// been the only one to have it.
func (r *run) heldByKilled(q meshsim.Request) bool {
	return slices.ContainsFunc(r.kills, func(kill time.Time) bool {
		return q.At.Before(kill) && kill.Sub(q.AnsweredAt) < heldBefore
	})
}

// judgeGrant compares a grant at the end with its chain and its events.
func (r *run) judgeGrant(grants []*store.Grant, chain meshsim.Chain, ledger meshsim.Ledger, v *verdict) {
	wrong := func(format string, args ...any) {
		if len(v.wrongAtEnd) < 10 {
			v.wrongAtEnd = append(v.wrongAtEnd, fmt.Sprintf("chain %d: ", chain.ID)+fmt.Sprintf(format, args...))
		}
	}
	if !chain.Alive() {
		if chain.DiedIn > 0 && r.chainHeldByKilled(chain, ledger) {
			v.lostInKill++
		} else {
			v.lost++
			wrong("%s", chain.DeadBecause)
		}
		return
	}
	if len(grants) != 1 {
		v.lost++
		wrong("%d records", len(grants))
		return
	}
	g := grants[0]
	if g.State != store.Active {
		v.lost++
		wrong("state %s, reason %s, though alive at the institution", g.State, g.Reason)
		return
	}
	// A grant's versions must all have been told, each once, without a gap.
	told := map[int64]bool{}
	for _, e := range r.heard.byGrant[g.ID] {
		switch e.Kind {
		case events.TokenStored, events.TokenRefreshed:
			if told[e.Data.Version] {
				v.contradicting++
				wrong("version %d told twice", e.Data.Version)
			}
			told[e.Data.Version] = true
		case events.TokenExpired, events.TokenRevoked:
			v.contradicting++
			wrong("%s told, though alive", e.Kind)
		}
	}
	for version := int64(1); version <= g.Version; version++ {
		if !told[version] {
			v.missing++
			wrong("version %d of %d not told", version, g.Version)
		}
	}
	if len(told) > int(g.Version) {
		v.contradicting++
		wrong("%d versions told, %d stored", len(told), g.Version)
	}
	v.longest = max(v.longest, longestGap(chain, ledger.At))
}

func (r *run) chainHeldByKilled(chain meshsim.Chain, ledger meshsim.Ledger) bool {
	for _, q := range ledger.Requests {
		if q.Chain == chain.ID && q.Rotated && r.heldByKilled(q) {
			return true
		}
	}
	return false
}

// longestGap is the longest time in which no access token of a chain lived.
func longestGap(chain meshsim.Chain, now time.Time) time.Duration {
	tokens := slices.Clone(chain.Access)
	slices.SortFunc(tokens, func(a, b meshsim.AccessToken) int { return a.IssuedAt.Compare(b.IssuedAt) })
	var longest time.Duration
	var until time.Time
	for _, t := range tokens {
		if !until.IsZero() && t.IssuedAt.After(until) {
			longest = max(longest, t.IssuedAt.Sub(until))
		}
		if t.ExpiresAt.After(until) {
			until = t.ExpiresAt
		}
	}
	if now.After(until) {
		longest = max(longest, now.Sub(until))
	}
	return longest
}

func (r *run) report(v verdict) error {
	bad := 0
	for _, n := range v.badTokens {
		bad += n
	}
	fmt.Fprintf(r.Out, "\nSeed %d, %d grants, %d workers, %s of scenes:", r.Seed, r.Grants, r.Workers, r.Duration)
	for _, name := range slices.Sorted(maps.Keys(r.played)) {
		fmt.Fprintf(r.Out, " %s x%d;", name, r.played[name])
	}
	fmt.Fprint(r.Out, "\n\n")
	w := tabwriter.NewWriter(r.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "FIGURE\tCOUNT\tMUST BE")
	row := func(what string, n int) { fmt.Fprintf(w, "%s\t%d\t0\n", what, n) }
	row("grants lost", v.lost)
	row("replaced refresh tokens presented without a lost answer", v.reused)
	row("access tokens handed out that were not valid", bad)
	row("events missing", v.missing)
	row("events that contradict what is stored", v.contradicting)
	figure := func(what string, n any) { fmt.Fprintf(w, "%s\t%v\t\n", what, n) }
	figure("grants lost with an answer that a killed process alone held", v.lostInKill)
	figure("retries after an answer that a killed process alone held", v.reusedInKill)
	figure("ambiguous retries (the answer was lost on the way)", v.ambiguous)
	figure("refresh calls", v.calls)
	figure("refreshes that brought tokens", v.issued)
	figure("events heard twice (same id)", r.heard.repeats)
	figure("access tokens handed out", r.asked.given)
	figure("token requests refused, unanswered", fmt.Sprintf("%d, %d", r.asked.refused, r.asked.unanswered))
	figure("longest time of a grant without a valid access token", v.longest.Round(100*time.Millisecond))
	if err := w.Flush(); err != nil {
		return fmt.Errorf("printing the table: %w", err)
	}
	for _, line := range v.wrongAtEnd {
		fmt.Fprintln(r.Out, "  "+line)
	}
	for why, n := range v.badTokens {
		fmt.Fprintf(r.Out, "  handed out though %s: %d\n", why, n)
	}
	if v.lost+v.reused+bad+v.missing+v.contradicting > 0 {
		return ErrJudged
	}
	return nil
}
