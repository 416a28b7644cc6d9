package refresher

import (
	"context"
	"errors"
	"slices"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
	"github.com/latchkey/latchkey/store/envelope"
)

// apply merges an answer into the grant and saves it, on conflicts again with the grant
// as stored. Of an answer that is older than the stored tokens the grant keeps what it
// never had. Where another grant has its refresh token by now, that one gets the answer.
// The error wraps store.ErrNotFound when the answer belongs to no grant.
func (r *Refresher) apply(ctx context.Context, g *store.Grant, p pending, with store.TokenSealer) (*store.Grant, error) {
	for discarded := false; ; {
		if g.State == store.Revoked {
			heir, err := r.grantOfToken(ctx, p, with.Key)
			if errors.Is(err, store.ErrNotFound) {
				return g, nil
			}
			if err != nil {
				return nil, err
			}
			g = heir
		}
		if g.ID != p.grantID && r.deps.Envelope.ByUser() {
			sealer, err := r.deps.Envelope.Sealer(ctx, g.UserID)
			if err != nil {
				return nil, err
			}
			with.Sealer = sealer
		}
		current, err := r.Tokens(ctx, g)
		unreadable := errors.Is(err, envelope.ErrSealed)
		if p.Beside && unreadable {
			return g, r.parkWhole(ctx, g, p.Answer)
		}
		if unreadable {
			// The stored set is lost, the answer is not: it follows the presented token.
			current, err = store.TokenSet{RefreshToken: p.Presented}, nil
		}
		if err != nil {
			return nil, err
		}
		beside := p.Beside
		if !beside && g.ID == p.grantID && p.isIn(g, current.RefreshToken) {
			return g, nil // an earlier attempt succeeded after all
		}
		if !beside && !p.supersedes(g, current.RefreshToken, with.Key) {
			if !discarded {
				discarded = true
				r.metrics.discarded.Inc()
				r.deps.Log.Warn("an answer came late and is older than what is stored", zap.String("grant", g.ID))
			}
			switch {
			case p.wasIn(g, with.Key):
				return g, nil
			case unreadable:
				return g, r.parkWhole(ctx, g, p.Answer)
			}
			beside = true
		}
		if beside {
			next, err := r.storeLeftovers(ctx, g, current, p, with)
			if !errors.Is(err, store.ErrConflict) {
				return next, err
			}
			if g, err = r.deps.Store.Get(ctx, p.grantID); err != nil {
				return nil, err
			}
			continue
		}
		epoch := p.epoch
		if g.ID != p.grantID || p.epoch > g.Epoch {
			epoch = 0 // of another grant, or of an earlier one with the same id
		}
		next := g.Clone()
		tokens, report, err := r.deps.Settler.applyAnswer(next, cloneTokens(current), p.unspent(g, p.Presented, with.Key), p.Renewed, epoch, p.Sent)
		if err != nil {
			return nil, err
		}
		if err := r.addLeftovers(ctx, next, &tokens, p, false); err != nil {
			return nil, err
		}
		with.SealTo(next, tokens, r.deps.Now(), false)
		err = r.deps.Store.Save(ctx, next)
		if err == nil {
			r.record(audit.Sealed, audit.OutcomeRefresh, next)
			r.reportUnusual(ctx, next, report)
			return next, nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return nil, err
		}
		g, err = r.deps.Store.Get(ctx, p.grantID)
		if errors.Is(err, store.ErrNotFound) {
			g, err = r.grantOfToken(ctx, p, with.Key)
		}
		if err != nil {
			return nil, err
		}
	}
}

// grantOfToken returns the other grant that holds the presented refresh token by now;
// store.ErrNotFound: there is none.
func (r *Refresher) grantOfToken(ctx context.Context, p pending, key store.FingerprintKey) (*store.Grant, error) {
	presented := key.Of(p.Presented)
	if presented == "" || !p.rotated() {
		return nil, store.ErrNotFound
	}
	for remembered := false; ; remembered = true {
		found, err := r.deps.Store.ByFingerprints(ctx, []string{presented})
		if err != nil {
			return nil, err
		}
		for _, g := range found {
			if g.State != store.Revoked && g.Chain.Head() == presented {
				return g, nil
			}
		}
		if remembered {
			return nil, store.ErrNotFound
		}
		// A grant that is stored with it from now on finds it spent; look for an earlier one.
		if err := r.recordSpent(ctx, presented); err != nil {
			return nil, err
		}
	}
}

// recordSpent remembers that the refresh token of a deleted grant was replaced.
func (r *Refresher) recordSpent(ctx context.Context, fingerprint string) error {
	return r.deps.Store.RecordSpent(ctx, fingerprint, r.deps.Now(), r.deps.Now().Add(r.deps.Remember))
}

func cloneTokens(t store.TokenSet) store.TokenSet {
	t.Accounts = slices.Clone(t.Accounts)
	return t
}

// isIn reports whether an answer is in the token set at hand already.
func (p pending) isIn(g *store.Grant, current secret.Text) bool {
	if g.Applied != p.epoch || p.epoch == 0 {
		return false
	}
	// A lease has one answer, but a connect may have replaced the tokens since.
	if current.Equal(p.Presented) {
		return !p.rotates(g, p.Presented)
	}
	return slices.ContainsFunc(p.replacements(), current.Equal)
}

// wasIn reports whether the grant has, or had, the refresh token of an older answer.
func (p pending) wasIn(g *store.Grant, key store.FingerprintKey) bool {
	refresh, _ := p.all()
	return slices.ContainsFunc(refresh, func(token secret.Text) bool {
		return !token.Equal(p.Presented) && g.Chain != nil && g.Chain.Key == key.ID && g.Chain.Has(key.Of(token))
	})
}

func (p pending) rotated() bool {
	return len(p.replacements()) > 0
}

// replacements are the refresh tokens of the answer other than the one presented.
func (p pending) replacements() (tokens []secret.Text) {
	a := p.withoutEchoes(p.Presented)
	for _, in := range append(a.Accounts, AnsweredAccount{RefreshToken: a.RefreshToken}) {
		if !in.RefreshToken.Empty() {
			tokens = append(tokens, in.RefreshToken)
		}
	}
	if only := a.onlyUnplaced(p.Presented); len(tokens) == 0 && a.Partial && !only.Empty() {
		tokens = append(tokens, only)
	}
	return tokens
}

func (p pending) supersedes(g *store.Grant, current secret.Text, key store.FingerprintKey) bool {
	ours := p.ConnectedAt.Equal(g.ConnectedAt)
	if g.Chain != nil && g.Chain.Key == key.ID {
		ours = g.Chain.Has(key.Of(p.Presented))
	}
	return Supersedes(g, ours, current, p.Presented, p.unspent(g, p.Presented, key), p.epoch)
}

// unspent returns the answer without refresh tokens that a refresh has replaced, the
// presented one included: none of them becomes the grant's again.
func (a Answer) unspent(g *store.Grant, presented secret.Text, key store.FingerprintKey) Answer {
	a = a.withoutEchoes(presented)
	if g.Chain == nil || g.Chain.Key != key.ID {
		return a
	}
	refresh, _ := a.all()
	for _, token := range refresh {
		if link := g.Chain.SpentLink(key.Of(token)); link != nil && link.Rotated {
			a.forget(token)
		}
	}
	return a
}

// Supersedes reports whether an answer is newer than the token set at hand: it replaced
// the refresh token at hand, or else its lease is the later one. ours: the presented
// token is or was one of this grant.
func Supersedes(g *store.Grant, ours bool, current, presented secret.Text, a Answer, epoch int64) bool {
	if g.State == store.Revoked {
		return false
	}
	if presented.Equal(current) {
		return epoch > g.Applied || a.rotates(g, presented)
	}
	return ours && epoch > g.Applied
}
