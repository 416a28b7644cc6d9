package refresher

import (
	"context"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store"
)

// unusual is what an operator should know about an answer.
type unusual struct {
	byPosition bool // tokens without an account went to accounts by their order
	ownerless  int  // entries whose tokens could be given to no account
	uncovered  int  // accounts that the answer did not cover
	separate   int  // accounts with refresh tokens of their own
	leftOut    int  // accounts for which the grant has no room
}

// Kinds of unusual answers, in the metric.
const (
	unusualByPosition = "by_position"
	unusualOwnerless  = "unplaced"
	unusualNotCovered = "not_covered"
	unusualSplit      = "split"
)

func (r *Refresher) reportUnusual(ctx context.Context, g *store.Grant, u unusual) {
	log := tracing.Log(ctx, r.deps.Log).With(zap.String("grant", g.ID), zap.String("broker", g.BrokerType))
	count := func(kind string) { r.metrics.unusual.WithLabelValues(kind).Inc() }
	if u.byPosition {
		count(unusualByPosition)
		log.Warn("an answer of Mesh does not name the accounts of its tokens; they are taken in the order of the grant's accounts")
	}
	if u.ownerless > 0 {
		count(unusualOwnerless)
		log.Error("an answer of Mesh has tokens that can be given to no account of the grant; they are kept sealed with it and handed out to nobody", zap.Int("entries", u.ownerless))
	}
	if u.uncovered > 0 {
		count(unusualNotCovered)
		log.Warn("an answer of Mesh does not cover all accounts of the grant; the others keep their access tokens", zap.Int("accounts", u.uncovered))
	}
	if u.leftOut > 0 {
		log.Error("an answer of Mesh is larger than a grant can hold; the last accounts are left out", zap.Int("accounts", u.leftOut))
	}
	if u.separate > 0 {
		count(unusualSplit)
		log.Warn("an answer of Mesh has several refresh tokens for one grant; accounts become grants of their own", zap.Int("accounts", u.separate))
	}
}
