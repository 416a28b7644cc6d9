package audit

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	records  *prometheus.CounterVec
	failures prometheus.Counter
	lost     prometheus.Counter
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
	m.records.WithLabelValues(string(HandedOut)) // at zero, so that the first one counts as an increase
	return m
}

func (m *metrics) recorded(action Action) { m.records.WithLabelValues(string(action)).Inc() }
