package chaos

import (
	"slices"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// judgeUser compares a user's grants at the end with the chains of their accounts and with
// their events.
func (r *run) judgeUser(i int, grants []*store.Grant, ledger answers, v *verdict) {
	family := ledger.family(accountsOf(i))
	heard := r.heardOf(grants)
	for _, chain := range family {
		r.judgeChain(grantOf(grants, chain), chain, ledger, v)
		for _, acc := range chain.Accounts {
			r.judgeRefreshed(acc, family, heard, ledger, v)
			r.judgeGaps(acc.ID, family, heard, ledger, v)
		}
	}
}

// grantOf is the grant of a chain, nil if there is none. One without accounts is a user's
// only grant.
func grantOf(grants []*store.Grant, chain meshsim.Chain) *store.Grant {
	i := slices.IndexFunc(grants, func(g *store.Grant) bool {
		return g.State != store.Revoked && (g.Account(chain.Accounts[0].ID) != nil || len(grants) == 1 && len(g.Accounts) == 0)
	})
	if i < 0 {
		return nil
	}
	return grants[i]
}

func (r *run) heardOf(grants []*store.Grant) (all []heardEvent) {
	for _, g := range grants {
		all = append(all, r.heard.byGrant[g.ID]...)
	}
	return all
}

// judgeChain compares a grant at the end with its chain and its events.
func (r *run) judgeChain(g *store.Grant, chain meshsim.Chain, ledger answers, v *verdict) {
	wrong := func(f figure, at time.Time, format string, args ...any) {
		v.count(f, at)
		v.say("chain %d (%v): "+format, append([]any{chain.ID, chain.Institution.Dialects}, args...)...)
	}
	left := chain.DeadBecause == meshsim.DeadByFault
	if !chain.Alive() && !left {
		if chain.DiedIn > 0 && r.chainHeldAlone(chain, ledger) {
			v.count(lostInLoss, chain.DiedAt)
		} else {
			wrong(lost, chain.DiedAt, "%s", chain.DeadBecause)
		}
		return
	}
	if g == nil {
		wrong(lost, ledger.At, "no record")
		return
	}
	heard := r.heard.byGrant[g.ID]
	if want := stateOf(chain); g.State != want {
		at := ledger.At
		if len(heard) > 0 {
			at = heard[len(heard)-1].Time
		}
		wrong(lost, at, "grant %s: state %s and not %s, reason %s", g.ID, g.State, want, g.Reason)
		return
	}
	ended := 0
	// Each version of a grant must be announced once.
	told := map[int64]time.Time{}
	for _, e := range heard {
		switch e.Kind {
		case events.TokenStored, events.TokenRefreshed:
			if _, twice := told[e.Data.Version]; twice {
				wrong(contradicting, e.Time, "version %d told twice", e.Data.Version)
			}
			told[e.Data.Version] = e.Time
		case events.TokenExpired, events.TokenRevoked:
			if e.Data.Reason == events.ReasonNotCovered {
				break // of an account's access token
			}
			if ended++; !left || e.Time.Before(chain.DiedAt.Add(-clockSkew)) {
				wrong(contradicting, e.Time, "grant %s: %s told, though alive", g.ID, e.Kind)
			}
		}
	}
	if g.State == store.Expired && ended == 0 {
		wrong(missing, ledger.At, "grant %s: its end was not told", g.ID)
	}
	silent := 0
	for _, q := range ledger.Requests {
		if q.Chain == chain.ID && withoutAccess(chain, q) {
			silent++ // a new refresh token alone is not announced
		}
	}
	at := chain.ConnectedAt
	for version := int64(1); version <= g.Version; version++ {
		switch {
		case !told[version].IsZero():
			at = told[version]
		case silent > 0:
			silent--
		default:
			wrong(missing, at, "version %d of %d not told", version, g.Version)
		}
	}
	if len(told) > int(g.Version) {
		wrong(contradicting, ledger.At, "%d versions told, %d stored", len(told), g.Version)
	}
}

// stateOf is the state in which a grant must end.
func stateOf(chain meshsim.Chain) store.State {
	// Workers don't take this refusal as final.
	if chain.Alive() || speaks(chain, "refusedPermissionDenied") {
		return store.Active
	}
	return store.Expired
}

// judgeRefreshed checks that events announce no more refreshes of an account than answers
// brought it access tokens.
func (r *run) judgeRefreshed(acc meshsim.Account, family []meshsim.Chain, heard []heardEvent, ledger answers, v *verdict) {
	called, last := 0, ledger.At
	for _, e := range heard {
		if e.Kind == events.TokenRefreshed && slices.ContainsFunc(e.Data.Accounts, func(a events.Account) bool { return a.AccountID == acc.ID }) {
			called, last = called+1, e.Time
		}
	}
	if told := ledger.told(family, acc.ID); called > told {
		v.count(contradicting, last)
		v.say("account %s: called refreshed %d times, with %d answers for it", acc.ID, called, told)
	}
}

func (r *run) chainHeldAlone(chain meshsim.Chain, ledger answers) bool {
	return slices.ContainsFunc(ledger.Requests, func(q meshsim.Request) bool {
		return q.Chain == chain.ID && q.Rotated && r.heldAlone(q)
	})
}
