package audit

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	records   *prometheus.CounterVec
	handedOut prometheus.Counter
	failures  prometheus.Counter
	lost      prometheus.Counter
}

// newMetrics registers the metrics with reg, unless that is nil.
func newMetrics(reg prometheus.Registerer, waiting func() float64) *metrics {
	m := &metrics{
		records:  prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "latchkey", Name: "audit_records_total", Help: "Records in the audit log by action."}, []string{"action"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "latchkey", Name: "audit_failures_total", Help: "Attempts to write the audit log or its head that failed."}),
		lost:     prometheus.NewCounter(prometheus.CounterOpts{Namespace: "latchkey", Name: "audit_lost_total", Help: "Records that found no room in the queue."}),
	}
	queue := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "latchkey", Name: "audit_queue", Help: "Records that wait to be written to the audit log."}, waiting)
	if reg != nil {
		reg.MustRegister(m.records, m.failures, m.lost, queue)
	}
	m.handedOut = m.records.WithLabelValues(string(HandedOut))
	return m
}

// recorded counts a record. Almost all are of one action, whose counter is at hand.
func (m *metrics) recorded(action Action) {
	if action == HandedOut {
		m.handedOut.Inc()
		return
	}
	m.records.WithLabelValues(string(action)).Inc()
}
