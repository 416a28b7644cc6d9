package refresher_test

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// gauges returns the values of a metric by its labels, which are joined in their order.
// Of a histogram it returns the sum of what was observed.
func gauges(t *testing.T, reg *prometheus.Registry, name string) map[string]float64 {
	t.Helper()
	all, err := reg.Gather()
	require.NoError(t, err)
	out := map[string]float64{}
	for _, family := range all {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			labels := ""
			for _, l := range m.GetLabel() {
				labels += " " + l.GetValue()
			}
			out[labels[1:]] = m.GetGauge().GetValue() + m.GetHistogram().GetSampleSum()
		}
	}
	return out
}

func TestWhatIsStoredIsMeasured(t *testing.T) {
	r := newRig(t)
	reg := prometheus.NewRegistry()
	w := r.Worker("a", func(d *refresher.Options) { d.Metrics = reg })
	c := config.Default().Reconcile
	c.Interval = time.Millisecond
	stock := must(refresher.NewGrantStats(refresher.GrantStatsOptions{Refresher: w.Refresher, Config: c}))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	t.Cleanup(func() { stop(); <-ended })
	overdue := func() map[string]float64 { return gauges(t, reg, "latchkey_overdue_grants") }

	for i, broker := range []string{"coinbase", "Kraken", "kraken"} {
		r.Connect(w, meshsim.ConnectSpec{BrokerType: broker}, func(g *store.Grant) {
			g.Due.At = r.Clock.Now().Add(time.Duration(i) * time.Minute)
			if i == 0 {
				g.State = store.MustAct
			}
		})
	}
	require.Empty(t, gauges(t, reg, "latchkey_grants"), "not before it was counted")
	go func() { defer close(ended); stock.Run(ctx) }()
	r.Eventually(func() bool {
		return maps.Equal(map[string]float64{"coinbase must_act": 1, "kraken active": 2}, gauges(t, reg, "latchkey_grants"))
	}, "grants by state and broker")
	require.Empty(t, overdue(), "due now is not overdue")

	// Nobody refreshes: what is due grows old, while every worker is well.
	r.Clock.Advance(10 * time.Minute)
	r.Eventually(func() bool { return maps.Equal(map[string]float64{"coinbase": 1, "kraken": 2}, overdue()) }, "overdue by broker")
	require.Equal(t, map[string]float64{"coinbase": 600, "kraken": 540}, gauges(t, reg, "latchkey_overdue_seconds"))

	// A database that can't be read is not one in which all is well.
	r.DB.Stop()
	r.Eventually(func() bool { return len(overdue()) == 0 }, "what can't be read is not shown")
	r.Eventually(func() bool {
		return r.Logs.FilterMessage("metrics of what is stored are missing while the database can't be read").Len() > 0
	}, "the log says so")
	r.DB.Restart()
	r.Eventually(func() bool { return len(overdue()) == 2 }, "and shown again")
}

// A refresh is late from when somebody could have done it.
func TestLatenessIsByBrokerAndFromWhenItCouldBeDone(t *testing.T) {
	r := newRig(t)
	reg := prometheus.NewRegistry()
	w := r.Worker("a", func(d *refresher.Options) { d.Metrics = reg })
	late := r.Connect(w, meshsim.ConnectSpec{BrokerType: "Kraken"}, func(g *store.Grant) { g.Due.At = r.Clock.Now().Add(-time.Minute) })
	require.NoError(t, w.HandleDue(t.Context(), due(late)))
	inTime := r.Connect(w, meshsim.ConnectSpec{BrokerType: "coinbase"})
	require.NoError(t, w.HandleDue(t.Context(), due(inTime)))
	require.Equal(t, map[string]float64{"coinbase": 0, "kraken": 60}, gauges(t, reg, "latchkey_refresh_lateness_seconds"))
}

func TestWhatIsDecidedLateIsDueNow(t *testing.T) {
	c := newClock(t0)
	s := settler(c, 0.5)
	g := newGrant()
	s.Schedule(g, &store.Due{At: t0.Add(-365 * day), Action: store.Refresh})
	require.Equal(t, t0, g.Due.At)
	s.Schedule(g, &store.Due{At: t0.Add(hour), Action: store.Refresh})
	require.Equal(t, t0.Add(hour), g.Due.At)

	// What was decided on before is only scheduled again, and as late as it is.
	c.Advance(2 * hour)
	s.Schedule(g, g.Due)
	require.Equal(t, t0.Add(hour), g.Due.At)
	s.Schedule(g, nil)
	require.Nil(t, g.Due)
}
