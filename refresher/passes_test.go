package refresher_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/refresher"
)

// One pass fails, one succeeds, and one is cut short by the worker's end, which
// is no failure.
func TestPassesAreCountedByOutcome(t *testing.T) {
	r := newRig(t)
	reg := prometheus.NewRegistry()
	w := r.Worker("a", func(d *refresher.Options) { d.Metrics = reg })
	passes := func() map[string]float64 {
		all, err := reg.Gather()
		require.NoError(t, err)
		counts := map[string]float64{}
		for _, family := range all {
			if family.GetName() != "latchkey_reconciliations_total" {
				continue
			}
			for _, m := range family.GetMetric() {
				counts[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
		return counts
	}
	require.Equal(t, map[string]float64{"ok": 0, "failed": 0}, passes(), "from zero on")

	ctx, cancel := context.WithCancel(t.Context())
	begun := 0
	w.Reconciler.Settings().Interval = time.Millisecond
	w.Topology.IdentitiesFunc = func(context.Context) ([]string, error) {
		switch begun++; begun {
		case 1:
			return nil, errors.New("away")
		case 2:
			return r.Streams.Identities(ctx)
		}
		cancel()
		return nil, ctx.Err()
	}
	w.Reconciler.Run(ctx)
	require.Equal(t, 3, begun)
	require.Equal(t, map[string]float64{"ok": 1, "failed": 1}, passes())
}
