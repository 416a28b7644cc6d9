package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// usersLeave lets one user of each institution withdraw consent: that grant ends, and its
// refresh token is refused.
func (r *run) usersLeave(ctx context.Context) error {
	for broker := range brokers {
		var there []int
		for i := broker; i < r.Grants; i += len(brokers) {
			// Without a lifetime a worker learns of the end by reports only.
			if !r.gone[i] && !slices.ContainsFunc(mannerOf(i).dialects, func(d string) bool { return d == "managedTokens" || slices.Contains(unclearLifetimes, d) }) {
				there = append(there, i)
			}
		}
		if len(there) < 3 {
			continue // the others have to go on
		}
		i := there[r.rng.IntN(len(there))]
		r.gone[i] = true
		for _, chain := range (answers{r.stack.Mesh.Ledger()}).family(accountsOf(i)) {
			if err := r.stack.Mesh.Kill(chain.Accounts[0].ID); err != nil {
				return fmt.Errorf("leaving: %w", err)
			}
		}
	}
	return r.pause(ctx, 3*time.Second, 6*time.Second)
}

// deluges are dialects that refuse everybody while the institution would take their tokens.
var deluges = []string{"refuseEverything", "failEverything", "wrongURL", "missingField", "invalidField"}

// leastRefused is how many refused grants of a broker make workers hold their verdicts
// (refresh.hold).
const leastRefused = 3

// refuseEverybody refuses every refresh at every institution. No grant may end of it, so it
// begins when no access token is about to expire, and at once with as many grants as it takes
// for a hold: fewer count as single users.
func (r *run) refuseEverybody(ctx context.Context) (err error) {
	first, err := r.fresh(ctx)
	if err != nil {
		return err
	}
	before := r.refreshCalls()
	for _, broker := range brokers {
		if err := r.stack.Mesh.Speak(broker, deluges[r.rng.IntN(len(deluges))]); err != nil {
			return fmt.Errorf("refusing everybody: %w", err)
		}
		defer func() { err = errors.Join(err, r.stack.Mesh.Speak(broker)) }()
	}
	var all sync.WaitGroup
	for _, g := range first {
		request := events.TokenRequest{UserID: g.UserID, Refused: []events.RefusedToken{{GrantID: g.ID, Version: g.Version}}}
		all.Go(func() { _ = r.readers.ask(ctx, r, r.readers.once, request) }) // it is refused, or not: that is counted
	}
	all.Wait()
	if err := r.pause(ctx, 2*time.Second, 4*time.Second); err != nil {
		return err
	}
	return r.untilCalls(ctx, before+waveCalls)
}

// fresh waits until no access token is about to expire, and returns some grants of each broker.
func (r *run) fresh(ctx context.Context) (some []*store.Grant, err error) {
	err = until(ctx, settleWithin, "quiet before everybody is refused", func() error {
		some = nil
		of, now := map[string]int{}, time.Now()
		for i := range r.Grants {
			if r.gone[i] {
				continue
			}
			grants, err := r.db.ByUser(ctx, user(i))
			if err != nil {
				return err
			}
			for _, g := range grants {
				if g.Refresh == nil || g.Access != nil && g.Access.ExpiresAt == nil {
					continue // nothing is due
				}
				if g.State != store.Active || g.Attempts > 0 || g.Deferrals > 0 || g.Access == nil || g.Access.ExpiresAt.Before(now.Add(r.Lifetime*2/5)) {
					return fmt.Errorf("grant %s, of %v, is late", g.ID, mannerOf(i).dialects)
				}
				if of[g.BrokerType]++; of[g.BrokerType] <= 2*leastRefused {
					some = append(some, g)
				}
			}
		}
		return nil
	})
	return some, err
}
