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
	published := r.eventsOf(grants)
	for _, chain := range family {
		r.judgeChain(grantOf(grants, chain), chain, ledger, v)
		for _, acc := range chain.Accounts {
			r.judgeRefreshed(acc, family, published, ledger, v)
			r.judgeGaps(acc.ID, family, published, ledger, v)
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

func (r *run) eventsOf(grants []*store.Grant) (all []publishedEvent) {
	for _, g := range grants {
		all = append(all, r.listener.byGrant[g.ID]...)
	}
	return all
}

// judgeChain compares a grant at the end with its chain and its events.
func (r *run) judgeChain(g *store.Grant, chain meshsim.Chain, ledger answers, v *verdict) {
	wrong := func(f figure, at time.Time, format string, args ...any) {
		v.count(f, at)
		v.say("chain %d (%v): "+format, append([]any{chain.ID, chain.Institution.Dialects}, args...)...)
	}
	userLeft := chain.DeadBecause == meshsim.DeadByFault
	if !chain.Alive() && !userLeft {
		if chain.DiedIn > 0 && r.chainSoleHolder(chain, ledger) {
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
	published := r.listener.byGrant[g.ID]
	if want := stateOf(chain); g.State != want {
		at := ledger.At
		if len(published) > 0 {
			at = published[len(published)-1].Time
		}
		wrong(lost, at, "grant %s: state %s and not %s, reason %s", g.ID, g.State, want, g.Reason)
		return
	}
	ended := 0
	// Each version of a grant must be announced once.
	announced := map[int64]time.Time{}
	for _, e := range published {
		switch e.Kind {
		case events.TokenStored, events.TokenRefreshed:
			if _, twice := announced[e.Data.Version]; twice {
				wrong(contradicting, e.Time, "version %d told twice", e.Data.Version)
			}
			announced[e.Data.Version] = e.Time
		case events.TokenExpired, events.TokenRevoked:
			if e.Data.Reason == events.ReasonNotCovered {
				break // of an account's access token
			}
			if ended++; !userLeft || e.Time.Before(chain.DiedAt.Add(-clockSkew)) {
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
		case !announced[version].IsZero():
			at = announced[version]
		case silent > 0:
			silent--
		default:
			wrong(missing, at, "version %d of %d not told", version, g.Version)
		}
	}
	if len(announced) > int(g.Version) {
		wrong(contradicting, ledger.At, "%d versions told, %d stored", len(announced), g.Version)
	}
}

func stateOf(chain meshsim.Chain) store.State {
	// Workers don't take this refusal as final.
	if chain.Alive() || speaks(chain, "refusedPermissionDenied") {
		return store.Active
	}
	return store.Expired
}

// judgeRefreshed checks that events announce no more refreshes of an account than answers
// brought it access tokens.
func (r *run) judgeRefreshed(acc meshsim.Account, family []meshsim.Chain, published []publishedEvent, ledger answers, v *verdict) {
	called, last := 0, ledger.At
	for _, e := range published {
		if e.Kind == events.TokenRefreshed && slices.ContainsFunc(e.Data.Accounts, func(a events.Account) bool { return a.AccountID == acc.ID }) {
			called, last = called+1, e.Time
		}
	}
	if delivered := ledger.deliveries(family, acc.ID); called > delivered {
		v.count(contradicting, last)
		v.say("account %s: called refreshed %d times, with %d answers for it", acc.ID, called, delivered)
	}
}

func (r *run) chainSoleHolder(chain meshsim.Chain, ledger answers) bool {
	return slices.ContainsFunc(ledger.Requests, func(q meshsim.Request) bool {
		return q.Chain == chain.ID && q.Rotated && r.soleHolder(q)
	})
}
