package refresher

import (
	"context"
	"errors"
	"slices"

	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

// makeChains makes the chains of grants that an earlier release wrote without one, or with
// fingerprints of a lost key.
func (r *Reconciler) makeChains(ctx context.Context) error {
	w := r.refresher
	// The key itself is needed only where there is something to do.
	key, err := w.deps.Store.SealedFingerprintKey(ctx)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	others, err := w.deps.Store.OtherChainKeys(ctx, key.ID)
	if err != nil {
		return err
	}
	walks := map[string]*walk{}
	for _, other := range append(others, "") {
		if walks[other] = r.chainWalks[other]; walks[other] == nil {
			walks[other] = &walk{}
		}
		err = errors.Join(err, r.workThrough(ctx, walks[other], "chain", func(ctx context.Context, after store.Place) (store.Page, error) {
			return w.deps.Store.ChainedBy(ctx, other, after.ID, r.config.Batch)
		}, r.ifUnchanged("chain", w.makeChain)))
	}
	r.chainWalks = walks
	return err
}

// makeChain makes the chain of a grant. Grants with the same refresh token are merged.
func (r *Refresher) makeChain(ctx context.Context, g *store.Grant) error {
	if g.State == store.Revoked || g.Busy(r.deps.Now()) {
		return nil // it goes, or gets a chain with what is under way, or has its turn later
	}
	key, err := r.deps.Fingerprints.Key(ctx)
	if err != nil {
		return err
	}
	tokens, err := r.Tokens(ctx, g)
	if err != nil && !errors.Is(err, envelope.ErrSealed) {
		return err
	}
	next := g.Clone()
	next.Chain = next.ChainFor(key, tokens)
	err = r.deps.Store.Save(ctx, next)
	if errors.Is(err, store.ErrConflict) {
		return nil
	}
	if err != nil {
		return err
	}
	found, err := r.deps.Store.ByFingerprints(ctx, next.Chain.Fingerprints())
	if err == nil && slices.ContainsFunc(found, func(o *store.Grant) bool { return o.ID != g.ID }) {
		err = r.deps.Resolve(ctx, g.UserID)
	}
	return err
}
