package refresher

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
	"github.com/latchkey/latchkey/store/envelope"
)

// call spends the refresh token, in a refresh that a code completes if there is one. The end of
// ctx stops nothing: the answer is kept even while the process shuts down.
func (r *Refresher) call(ctx context.Context, g *store.Grant, tokens store.TokenSet, code secret.Text, with store.TokenSealer, turn *permit) (*store.Grant, error) {
	ctx = context.WithoutCancel(ctx)
	sent := r.deps.Now()
	request := RefreshRequest{
		BrokerType: g.BrokerType, RefreshToken: tokens.RefreshToken, TradeToken: tokens.TradeToken, Metadata: tokens.Metadata,
		CreateNewRefreshToken: r.deps.Settler.Policy.RenewsAt(g, sent), Spare: tokens.Spare, NotAfter: g.Lease.Until.Add(-r.deps.CallAndSave),
	}
	if g.SendAccess || slices.ContainsFunc(r.deps.SendAccess, func(b string) bool { return events.SameBroker(b, g.BrokerType) }) {
		request.AccessToken = newestAccess(g, tokens)
	}
	if !code.Empty() {
		request.MFACode, request.AccessToken = code, tokens.Interim
	}
	for _, account := range tokens.Accounts {
		request.Current = append(request.Current, account.AccessToken, account.RefreshToken)
	}
	p := pending{id: r.deps.NewID(), grantID: g.ID, epoch: g.Epoch, Presented: tokens.RefreshToken, ConnectedAt: g.ConnectedAt, Sent: sent}
	r.record(audit.Opened, audit.OutcomeRefresh, g)
	answer, err := r.deps.Mesh.Refresh(ctx, request)
	if err != nil {
		f := AsFailure(err)
		turn.end(f)
		tracing.Set(ctx, tracing.Outcome(string(f.Class)))
		if f.Class == notSent {
			return nil, r.postponeLate(ctx, g)
		}
		r.metrics.call(g.BrokerType, r.deps.Now().Sub(sent), f)
		f.chooseRefreshToken(g, &tokens, with.Key)
		p.Answer = f.Answer
		if f.Answer.dropDoubtful(g); !f.Answer.Rest.Empty() {
			g = r.keepRest(ctx, g, p, with)
			if kept, err := r.Tokens(ctx, g); err == nil {
				tokens = kept
			}
		}
		switch {
		case !f.Interim.Empty(), !f.RefreshToken.Empty():
			p.id, p.Answer, p.Beside = r.deps.NewID(), f.demanding(), f.RefreshToken.Empty()
			return r.awaitCode(ctx, g, tokens, f, p, !code.Empty(), with)
		case !code.Empty():
			return r.storeCodeFailure(ctx, g, f)
		}
		return r.storeFailure(ctx, g, f)
	}
	turn.end(r.reportContradiction(ctx, g, answer.Contradicts))
	answer.dropDoubtful(g)
	tracing.Set(ctx, tracing.Outcome(refreshed))
	r.metrics.call(g.BrokerType, r.deps.Now().Sub(sent), nil)
	p.Answer, p.Renewed = answer, request.CreateNewRefreshToken
	saved := r.keep(ctx, g, p, with)
	if saved == nil {
		return nil, nil
	}
	tracing.Log(ctx, r.deps.Log).Info("refreshed", zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.Int64("version", saved.Version))
	saved = r.finish(ctx, saved, len(saved.Accounts) != len(g.Accounts) || saved.Rev != g.Rev+1)
	r.verdicts.succeeded(ctx, g.BrokerType)
	return saved, nil
}

// finish does what follows once an answer is stored: dead letters, events, and, where
// the answer may concern other grants of the user, sorting out who has which account.
func (r *Refresher) finish(ctx context.Context, saved *store.Grant, others bool) *store.Grant {
	saved = r.ParkLeftovers(ctx, saved)
	r.deps.Dispatcher.Send(ctx, saved)
	if others || saved.HasSeparateRefreshTokens {
		if err := r.deps.Resolve(ctx, saved.UserID); err != nil {
			r.deps.Log.Warn("sorting out accounts after an answer failed; the next connect or refresh does it", zap.String("grant", saved.ID), zap.Error(err))
		}
	}
	return saved
}

// newestAccess is the access token to send along with a refresh, if possible one that
// the last answers covered.
func newestAccess(g *store.Grant, tokens store.TokenSet) (token secret.Text) {
	for _, its := range tokens.Accounts {
		if its.AccessToken.Empty() {
			continue
		}
		if a := g.Account(its.AccountID); a == nil || g.Newest(*a) {
			return its.AccessToken
		}
		if token.Empty() {
			token = its.AccessToken
		}
	}
	return token
}

// reportContradiction reports an answer with tokens whose statuses or form say that it has
// none. Of what they say it returns only a rate limit.
func (r *Refresher) reportContradiction(ctx context.Context, g *store.Grant, said *Failure) *Failure {
	if said == nil {
		return nil
	}
	r.metrics.contradicted.WithLabelValues(r.metrics.broker(g.BrokerType), string(said.Class)).Inc()
	tracing.Log(ctx, r.deps.Log).Warn("an answer brings tokens though its statuses or its form speak against it; the tokens count",
		zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.String("class", string(said.Class)), zap.String("detail", said.Detail))
	if said.Class == RateLimited {
		return said
	}
	return nil
}

// storeFailure stores what a failure means. If that fails the lease runs out, and the next
// worker finds the outcome unknown.
func (r *Refresher) storeFailure(ctx context.Context, g *store.Grant, f *Failure) (*store.Grant, error) {
	fields := []zap.Field{
		zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.String("class", string(f.Class)),
		zap.Bool("ambiguous", f.Ambiguous), zap.String("detail", f.Detail), zap.String("errorType", f.ErrorType), zap.String("errorHash", f.ErrorHash), zap.NamedError("cause", f.Err),
	}
	log := tracing.Log(ctx, r.deps.Log)
	if f.Class == Denied {
		log.Error("Mesh refuses the client credentials: all refreshes pause; check mesh.client_id and mesh.client_secret", fields...)
	} else {
		log.Warn("refresh failed", fields...)
	}
	if f.Refusal() && !curable(g, f) {
		f.Held = r.verdicts.refused(ctx, g)
	}
	next, err := r.underLease(ctx, g, func(next *store.Grant) error { return r.deps.Settler.ApplyFailure(next, f) })
	if err == nil {
		r.sendState(ctx, g, next)
	}
	if errors.Is(err, store.ErrConflict) {
		return next, nil // whoever changed it knew better
	}
	return next, err
}

func (r *Refresher) storeUnreadable(ctx context.Context, g *store.Grant, err error) (*store.Grant, error) {
	next := g.Clone()
	next.Lease = nil
	if errors.Is(err, envelope.ErrSealed) {
		r.metrics.unreadable.Inc()
		r.deps.Log.Error("a stored token set does not open: it was changed from outside, or the database is an older copy", zap.String("grant", g.ID), zap.Error(err))
		err = r.deps.Settler.Expire(next, events.ReasonUnreadable)
	} else { // for now, or until somebody restores a key: no token was spent
		r.deps.Log.Error("a token set can't be opened now", zap.String("grant", g.ID), zap.Error(err))
		err = r.deps.Settler.ApplyFailure(next, &Failure{Class: Transient, Detail: "no key"})
	}
	if err != nil {
		return nil, err
	}
	return r.commitState(ctx, g, next)
}

// commitState saves a change without new tokens. If the grant has changed meanwhile it
// returns that one: whoever changed it knew better.
func (r *Refresher) commitState(ctx context.Context, g, next *store.Grant) (*store.Grant, error) {
	err := r.deps.Store.Save(ctx, next)
	if errors.Is(err, store.ErrConflict) {
		return r.deps.Store.Get(ctx, g.ID)
	}
	if err != nil {
		return nil, err
	}
	r.sendState(ctx, g, next)
	return next, nil
}

func (r *Refresher) sendState(ctx context.Context, g, next *store.Grant) {
	if next.State == store.Expired && g.State != store.Expired {
		r.metrics.ended.WithLabelValues(string(next.Reason)).Inc()
		tracing.Log(ctx, r.deps.Log).Warn("grant expired", zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.String("reason", string(next.Reason)))
	}
	r.deps.Dispatcher.Send(ctx, next)
}

// Pauses between attempts to store an answer.
const (
	keepPauseMin = 100 * time.Millisecond
	keepPauseMax = 5 * time.Second
)

// keep stores an answer in the database, or else in the recovery stream. It tries
// both in turn until one has it: the refresh token exists nowhere else. The grant is
// nil when the answer is in the recovery stream, or the grant was erased.
func (r *Refresher) keep(ctx context.Context, g *store.Grant, p pending, with store.TokenSealer) *store.Grant {
	for pause := keepPauseMin; ; pause = min(pause*2, keepPauseMax) {
		if with.Expired(r.deps.Now()) {
			// The process was suspended for so long that the data key may be pruned.
			with = r.renewSealer(ctx, g, with)
		}
		saved, err := r.apply(ctx, g, p, with)
		if err == nil {
			return saved
		}
		if errors.Is(err, store.ErrNotFound) {
			r.deps.Log.Info("the grant was erased while it was being refreshed", zap.String("grant", g.ID))
			return nil
		}
		rescueErr := r.rescue(ctx, g, p, with)
		tracing.Log(ctx, r.deps.Log).Error("an answer can't be stored", zap.String("grant", g.ID), zap.Error(err), zap.Bool("rescued", rescueErr == nil), zap.NamedError("rescueError", rescueErr))
		if rescueErr == nil {
			return nil
		}
		time.Sleep(pause)
		with = r.renewSealer(ctx, g, with)
	}
}

// renewSealer returns a sealer under the active data key, or the one at hand.
func (r *Refresher) renewSealer(ctx context.Context, g *store.Grant, with store.TokenSealer) store.TokenSealer {
	if fresh, err := r.deps.Envelope.Sealer(ctx, g.UserID); err == nil {
		with.Sealer = fresh
	}
	return with
}
