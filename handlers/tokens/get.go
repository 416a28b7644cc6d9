package tokens

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
)

// requester is the request that get works for.
type requester struct {
	caller string
	// waitFor exchanges the asker's place for one among those that wait for something
	// else; "": for none.
	waitFor func(what string) bool
	// noteReading is told what the answer is made from.
	noteReading func(*reading)
}

// nobody is a requester without a place to hold.
var nobody = requester{waitFor: func(string) bool { return true }, noteReading: func(*reading) {}}

// Get answers a request and records nothing but the grants. The error is a refusal or a fault
// of the worker.
func (t *Service) Get(ctx context.Context, in events.TokenRequest, record *audit.Record) (events.TokenReply, error) {
	out, err := t.get(ctx, in, record, nobody)
	if err != nil {
		return out.TokenReply, err
	}
	body, err := out.encode(nil)
	if err != nil {
		return events.TokenReply{}, err
	}
	defer clear(body)
	return events.DecodeTokenReply(body)
}

// get returns the current tokens that a request asks for. Grants with too little lifetime left
// are refreshed first, in parallel. get adds the grants to record.
func (t *Service) get(ctx context.Context, in events.TokenRequest, record *audit.Record, who requester) (*reply, error) {
	from, err := t.read(ctx, in, who.caller)
	if err != nil {
		return &reply{}, err
	}
	who.noteReading(from)
	all, err := t.endReported(ctx, in, from.grants)
	if err != nil {
		return &reply{}, err
	}
	wanted, reports := wantedGrants(in, all), reportsOf(in, all)
	refused, grants := t.reportedGrants(reports, wanted)
	if waiting := t.waiting(in, grants, refused); len(waiting) > 0 {
		who.waitFor("")
		t.refreshAll(ctx, in, grants, waiting, refused, who.caller)
		wanted = grants[:len(wanted)]
	}
	results := t.results(reports, grants)
	if t.lacksDataKey(wanted) && !who.waitFor(forKeys) {
		return &reply{}, refuse(events.CodeBusy, "too many requests wait for a data key; ask again")
	}
	out, err := t.reply(ctx, in, wanted, record)
	if refusal := (*refusal)(nil); errors.As(err, &refusal) {
		refusal.Refused = results
	}
	out.Refused = results
	return out, err
}

// read reads the grants of a request's user. Callers take turns at reading the
// database. Reports of refused tokens always read it, since they depend on what is
// stored now.
func (t *Service) read(ctx context.Context, in events.TokenRequest, caller string) (*reading, error) {
	reread := len(in.Refused) > 0
	if from, ok := t.grants.cached(in.UserID); ok && !reread {
		return from, nil
	}
	if err := t.turns.enter(ctx, caller); err != nil {
		return nil, err
	}
	defer t.turns.leave()
	if reread {
		return t.grants.reread(ctx, in.UserID)
	}
	return t.grants.byUser(ctx, in.UserID) // another request may have read them meanwhile
}

// waiting returns the indexes of the grants whose refresh is worth waiting for: there is
// too little lifetime left, or their tokens were reported as refused.
func (t *Service) waiting(in events.TokenRequest, grants []*store.Grant, refused map[string]bool) (at []int) {
	minTTL := t.minTTL(in)
	for i, g := range grants {
		if refused[g.ID] || !t.fresh(g, minTTL) {
			at = append(at, i)
		}
	}
	if len(at) == 0 { // nearly always
		return nil
	}
	toGive := t.hasToken(in, grants)
	return slices.DeleteFunc(at, func(i int) bool {
		g := grants[i]
		return t.waitIsUseless(g, toGive && !refused[g.ID])
	})
}

// fromMemory returns the grants that a request asks for, and the reading that they are from, if
// it can be answered from memory, without waiting and with little work.
func (t *Service) fromMemory(in events.TokenRequest) (wanted []*store.Grant, from *reading) {
	from, ok := t.grants.cached(in.UserID)
	if !ok || in.SealTo != nil || len(in.Refused) > 0 {
		return nil, nil
	}
	wanted = wantedGrants(in, from.grants)
	if len(t.waiting(in, wanted, nil)) > 0 || t.lacksDataKey(wanted) {
		return nil, nil
	}
	return wanted, from
}

// lacksDataKey reports whether the data key of a token to hand out must be fetched first.
func (t *Service) lacksDataKey(grants []*store.Grant) bool {
	return slices.ContainsFunc(grants, func(g *store.Grant) bool { return !t.opts.Refresher.HasDataKey(g) && t.valid(g) })
}

// wantedGrants returns those of a user's grants that a request asks for.
func wantedGrants(in events.TokenRequest, all []*store.Grant) (wanted []*store.Grant) {
	for _, g := range all {
		if g.State != store.Revoked && len(matching(g, in, all)) > 0 {
			wanted = append(wanted, g)
		}
	}
	return wanted
}

// refreshAll replaces the grants at some indexes by what their refreshes yield. A token
// that was refused counts as none while waiting.
func (t *Service) refreshAll(ctx context.Context, in events.TokenRequest, grants []*store.Grant, at []int, refused map[string]bool, caller string) {
	toGive := t.hasToken(in, grants)
	var wg sync.WaitGroup
	for _, i := range at {
		g := grants[i]
		wg.Go(func() {
			defer t.logPanic("waiting for the refresh of a grant failed", g)
			grants[i] = t.await(ctx, g, toGive && !refused[g.ID], refused[g.ID], caller)
		})
	}
	wg.Wait()
}

// matching returns the accounts of a grant that a request asks for, except those that
// are in a newer grant.
func matching(g *store.Grant, in events.TokenRequest, all []*store.Grant) []store.Account {
	if in.BrokerType != "" && !events.SameBroker(in.BrokerType, g.BrokerType) {
		return nil
	}
	accounts := g.Accounts
	if len(accounts) == 0 && in.AccountID == "" {
		unknown := store.Account{}
		if g.Access != nil {
			unknown.ExpiresAt = g.Access.ExpiresAt
		}
		return []store.Account{unknown} // not known yet
	}
	excluded := func(a store.Account) bool {
		if in.AccountID != "" && in.AccountID != a.ID {
			return true
		}
		if a.ID == "" { // see Grant.Heal
			return len(accounts) > 1
		}
		return g.InNewer(a.ID, all)
	}
	if !slices.ContainsFunc(accounts, excluded) { // nearly always: no copy is needed
		return accounts
	}
	return slices.DeleteFunc(slices.Clone(accounts), excluded)
}
