package operator

import (
	"encoding/json"
	"testing"

	"github.com/nats-io/nats.go/micro"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

func TestWorkIsWhatTheMetricsCount(t *testing.T) {
	reg := prometheus.NewRegistry()
	refreshes := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "latchkey", Name: "refreshes_total"}, []string{"broker", "outcome"})
	late := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "latchkey", Name: "refresh_lateness_seconds", Buckets: []float64{1, 10}}, []string{"broker"})
	reg.MustRegister(refreshes, late)
	w, brokers, l := count(reg)
	require.Zero(t, w)
	require.Empty(t, brokers)
	require.Zero(t, l)

	refreshes.WithLabelValues("a", "refreshed").Add(3)
	refreshes.WithLabelValues("b", "refreshed").Inc()
	refreshes.WithLabelValues("b", "transient").Add(2)
	for _, seconds := range []float64{0.5, 0.5, 5, 50} {
		late.WithLabelValues("a").Observe(seconds)
	}
	w, brokers, l = count(reg)
	require.Equal(t, Work{Refreshed: 4, Failed: 2}, w)
	require.Equal(t, []Outcomes{
		{Broker: "b", Work: Work{Refreshed: 1, Failed: 2}, Errors: []ErrorCount{{"transient", 2}}},
		{Broker: "a", Work: Work{Refreshed: 3}, Errors: []ErrorCount{}},
	}, brokers)
	require.Equal(t, Lateness{Refreshes: 4, Within50: 1, Within99: -1}, l)

	late.WithLabelValues("b").Observe(0.5)
	_, _, l = count(reg)
	require.Equal(t, Lateness{Refreshes: 5, Within50: 1, Within99: -1}, l)
	for range 1000 {
		late.WithLabelValues("b").Observe(5)
	}
	_, _, l = count(reg)
	require.Equal(t, Lateness{Refreshes: 1005, Within50: 10, Within99: 10}, l)
}

func TestAWorkerIsWhatItTellsOfItself(t *testing.T) {
	p := &Page{Options: Options{WorkerID: "one"}}
	stats := func(id string, data any) micro.Stats {
		body, err := json.Marshal(data)
		require.NoError(t, err)
		return micro.Stats{
			ServiceIdentity: micro.ServiceIdentity{ID: "random", Metadata: map[string]string{workerKey: id}},
			Endpoints:       []*micro.EndpointStats{{NumRequests: 3, Data: body}, {NumRequests: 4}},
		}
	}
	w := p.worker(stats("one", Work{Refreshed: 3, Failed: 2}))
	require.Equal(t, Worker{ID: "one", Requests: 7, Work: Work{Refreshed: 3, Failed: 2}, Self: true}, w)
	require.Equal(t, Worker{ID: "two", Requests: 7}, p.worker(stats("two", map[string]any{"from": "2026-03-01T10:00:00Z", "seconds": 300, "refreshed": []int{1, 2}, "failed": []int{0, 0}})),
		"an earlier release tells of spans of time")
	require.Equal(t, Worker{ID: "random", Requests: 7}, p.worker(stats("", nil)))
}
