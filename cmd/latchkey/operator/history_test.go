package operator

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

func TestHistoryKeepsSixHours(t *testing.T) {
	now := time.Date(2026, 3, 1, 10, 2, 0, 0, time.UTC)
	reg := prometheus.NewRegistry()
	refreshes := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "latchkey", Name: "refreshes_total"}, []string{"broker", "outcome"})
	late := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "latchkey", Name: "refresh_lateness_seconds", Buckets: []float64{1, 10}})
	reg.MustRegister(refreshes, late)
	h := history{gather: reg, now: func() time.Time { return now }}
	require.Zero(t, h.lateness())

	refreshes.WithLabelValues("a", "refreshed").Add(3)
	refreshes.WithLabelValues("b", "transient").Add(2)
	for _, seconds := range []float64{0.5, 0.5, 5, 50} {
		late.Observe(seconds)
	}
	w := h.work()
	require.Equal(t, 300, w.Seconds)
	require.Equal(t, time.Date(2026, 3, 1, 4, 5, 0, 0, time.UTC), w.From)
	require.Equal(t, 3, w.Refreshed[slots-1])
	require.Equal(t, 2, w.Failed[slots-1])
	require.Equal(t, Lateness{Refreshes: 4, Within50: 1, Within99: -1}, h.lateness())

	now = now.Add(10 * time.Minute)
	refreshes.WithLabelValues("b", "refreshed").Inc()
	late.Observe(0.5)
	w = h.work()
	require.Equal(t, []int{3, 0, 1}, w.Refreshed[slots-3:])
	require.Equal(t, Lateness{Refreshes: 5, Within50: 1, Within99: -1}, h.lateness())

	now = now.Add(2 * time.Hour)
	require.Zero(t, h.lateness().Refreshes, "only the last hour counts")
	now = now.Add(6 * time.Hour)
	w = h.work()
	for i := range slots {
		require.Zero(t, w.Refreshed[i]+w.Failed[i])
	}
	// The ring is used again.
	refreshes.WithLabelValues("a", "refreshed").Inc()
	require.Equal(t, 1, h.work().Refreshed[slots-1])
}

func TestWorkersAreAddedUpBySlot(t *testing.T) {
	now := time.Date(2026, 3, 1, 10, 2, 0, 0, time.UTC)
	work := func(from time.Time, refreshed ...int) Work {
		return Work{From: from, Seconds: int(slotWidth / time.Second), Refreshed: refreshed, Failed: make([]int, len(refreshed))}
	}
	var a, b, old, other, broken Worker
	a.did(work(now.Truncate(slotWidth).Add(-slotWidth), 1, 2), now)
	b.did(work(now.Truncate(slotWidth).Add(-2*time.Hour), 7), now)
	old.did(work(now.Add(-24*time.Hour), 100), now)
	other.did(Work{From: now, Seconds: 60, Refreshed: []int{5}, Failed: []int{5}}, now)
	broken.did(Work{From: now.Truncate(slotWidth), Seconds: 300, Refreshed: make([]int, 1000)}, now)
	require.Equal(t, 3, a.Refreshed)
	require.Zero(t, b.Refreshed, "longer ago than an hour")
	total := sum([]Worker{a, b, old, other, broken}, now)
	require.Equal(t, []int{1, 2}, total.Refreshed[slots-2:])
	require.Equal(t, 7, total.Refreshed[slots-1-24])
	all := 0
	for _, n := range total.Refreshed {
		all += n
	}
	require.Equal(t, 10, all)
}
