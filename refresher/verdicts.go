package refresher

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// Where many grants of one broker are refused in a row and none is refreshed, the cause
// is not the users: a wrong mesh.url, a fault at Mesh or at the institution. Then
// verdicts there are held until a refresh succeeds or an operator decides. One small
// document for each broker makes that the same for all workers and after any restart.

// verdicts decides where verdicts are held.
type verdicts struct {
	store   *store.Store
	hold    config.Hold
	now     func() time.Time
	log     *zap.Logger
	metrics *metrics

	// cleared is when this worker last stored a success at a broker (time.Time), by its key.
	cleared sync.Map
}

// clearedFor is how long a worker does not store another success at a broker, unless it
// has seen a refusal there.
const clearedFor = 10 * time.Second

// refused notes a refusal and reports whether verdicts are held at its broker; if that can't be
// read they are. A grant counts once, when it is first refused.
func (v *verdicts) refused(ctx context.Context, g *store.Grant) (held bool) {
	broker := events.BrokerKey(g.BrokerType)
	v.cleared.Delete(broker)
	var seen store.Verdicts
	var begins bool
	var err error
	if g.Refusals == nil || g.Refusals.Times == 0 {
		seen, begins, err = v.store.RecordRefusal(ctx, broker, g.ID, v.now(), v.hold.Grants, v.hold.Within)
	} else {
		seen, err = v.store.VerdictsAt(ctx, broker)
	}
	if err != nil {
		v.log.Warn("the refusals at a broker can't be counted; this one decides nothing", zap.String("grant", g.ID), zap.String("broker", broker), zap.Error(err))
		return true
	}
	if begins {
		v.log.Error("verdicts are held: grants of a broker are refused one after the other and none is refreshed. Look at mesh.url, Mesh and the institution; latchkey verdicts release ends it if the users really have left",
			zap.String("broker", broker), zap.Int("grants", len(seen.Refused)))
		v.metrics.held.WithLabelValues(v.metrics.broker(broker)).Set(1)
	}
	return v.held(seen)
}

// held reports whether verdicts are held, by a decision or by the present configuration.
func (v *verdicts) held(seen store.Verdicts) bool {
	return seen.HeldSince != nil && (v.hold.Grants > 0 || seen.Decided == store.DecidedHold)
}

// heldAt reports whether verdicts are held at a broker. If that can't be read they are.
func (v *verdicts) heldAt(ctx context.Context, brokerType string) bool {
	seen, err := v.store.VerdictsAt(ctx, events.BrokerKey(brokerType))
	return err != nil || v.held(seen)
}

func (v *verdicts) succeeded(ctx context.Context, brokerType string) {
	broker, now := events.BrokerKey(brokerType), v.now()
	if at, ok := v.cleared.Load(broker); ok && now.Before(at.(time.Time).Add(clearedFor)) {
		return
	}
	v.cleared.Store(broker, now)
	ended, err := v.store.RecordSuccess(ctx, broker)
	if err != nil {
		v.cleared.Delete(broker)
		v.log.Warn("a success at a broker can't be recorded; the next one follows", zap.String("broker", broker), zap.Error(err))
		return
	}
	if ended {
		v.log.Info("verdicts are no longer held: a refresh succeeded", zap.String("broker", broker))
		v.metrics.held.WithLabelValues(v.metrics.broker(broker)).Set(0)
	}
}

// updateMetrics updates the metrics by what all workers have stored.
func (v *verdicts) updateMetrics(ctx context.Context) error {
	all, err := v.store.Verdicts(ctx)
	if err != nil {
		return err
	}
	v.metrics.held.Reset()
	for _, at := range all {
		v.metrics.held.WithLabelValues(v.metrics.broker(at.Broker)).Set(oneIf(at.HeldSince != nil))
	}
	return nil
}
