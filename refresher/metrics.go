package refresher

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/latchkey/latchkey/events"
)

// refreshed is the outcome of a call that brought tokens; else it is the failure's class.
const refreshed = "refreshed"

// The outcomes of a pass of reconciliation.
const passOK, passFailed = "ok", "failed"

// maxBrokers bounds the broker label: broker types appear without notice.
const maxBrokers = 100

type metrics struct {
	takenOver, rescued, recovered, discarded, unreadable, outdated                         prometheus.Counter
	refreshes, ended, leftover, contradicted, unusual, repaired, passes, removals, refused *prometheus.CounterVec
	breaker, held                                                                          *prometheus.GaugeVec
	duration, lateness                                                                     *prometheus.HistogramVec

	mu      sync.Mutex
	brokers map[string]bool
	// reports are those of refused access tokens by the broker label.
	reports map[string]BrokerReports
}

func newMetrics(reg prometheus.Registerer) *metrics {
	made := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return made.NewCounter(prometheus.CounterOpts{Namespace: "latchkey", Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return made.NewCounterVec(prometheus.CounterOpts{Namespace: "latchkey", Name: name, Help: help}, labels)
	}
	byBroker := func(name, help string) *prometheus.GaugeVec {
		return made.NewGaugeVec(prometheus.GaugeOpts{Namespace: "latchkey", Name: name, Help: help}, []string{"broker"})
	}
	m := &metrics{
		refreshes: counters("refreshes_total", "Refresh calls to Mesh by broker type and outcome.", "broker", "outcome"),
		duration: made.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "latchkey", Name: "refresh_duration_seconds", Help: "Duration of refresh calls to Mesh.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2.5, 10),
		}, []string{"broker"}),
		lateness: made.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "latchkey", Name: "refresh_lateness_seconds", Help: "Time between a grant's due time and its handling, by broker type.",
			Buckets: []float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800},
		}, []string{"broker"}),
		ended:        counters("grants_expired_total", "Grants declared expired, by reason.", "reason"),
		takenOver:    counter("leases_taken_over_total", "Leases that ran out without being given back."),
		rescued:      counter("answers_rescued_total", "Answers of Mesh written to the recovery stream because the database refused them."),
		recovered:    counter("answers_recovered_total", "Entries of the recovery stream that were processed."),
		discarded:    counter("answers_discarded_total", "Answers of Mesh that were older than what was stored."),
		leftover:     counters("answers_left_over_total", "Dead letters made of what answers of Mesh brought and could not be used, by broker type.", "broker"),
		contradicted: counters("answers_contradictory_total", "Answers of Mesh with tokens whose statuses say that there are none, by broker type and the class that the statuses give.", "broker", "class"),
		unusual:      counters("answers_unusual_total", "Answers of Mesh whose tokens could not simply be given to the accounts that they name, by kind.", "kind"),
		breaker:      byBroker("broker_breaker_open", "1 while refreshes at the broker are suspended after failures."),
		repaired:     counters("reconciled_total", "Repairs made by reconciliation, by kind.", "kind"),
		passes:       counters("reconciliations_total", "Passes of reconciliation, by outcome.", "outcome"),
		unreadable:   counter("token_sets_unreadable_total", "Stored token sets that did not open."),
		outdated:     counter("grants_outdated_total", "Stored grants that were older than a schedule made for them: the database went back in time."),
		removals:     counters("removals_total", "Removals at Mesh of what users disconnected, by what became of them.", "outcome"),
		refused:      counters("access_tokens_refused_total", "Reports of callers that an access token was refused where it was used, by broker type and what came of them.", "broker", "outcome"),
		held:         byBroker("verdicts_held", "1 while no grant of the broker expires for a refusal, since grants were refused in a row; 0 while some were refused and none is held."),
		brokers:      map[string]bool{},
		reports:      map[string]BrokerReports{},
	}
	// From zero on: an alert sees only what a counter grew by, not where it began.
	for _, reason := range []events.Reason{
		events.ReasonNoRefreshToken, events.ReasonRefreshTokenExpired, events.ReasonMFARequired, events.ReasonRejected,
		events.ReasonNotFound, events.ReasonBadRequest, events.ReasonOutcomeLost, events.ReasonUnreadable,
	} {
		m.ended.WithLabelValues(string(reason))
	}
	for _, reason := range removalReasons {
		m.removals.WithLabelValues(string(reason))
	}
	for _, kind := range []string{unusualByPosition, unusualOwnerless, unusualNotCovered, unusualSplit} {
		m.unusual.WithLabelValues(kind)
	}
	for _, outcome := range []string{passOK, passFailed} {
		m.passes.WithLabelValues(outcome)
	}
	return m
}

// broker returns the value of the broker label: the key of the broker type, or
// "other" once there are too many.
func (m *metrics) broker(name string) string {
	name = events.BrokerKey(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.brokers[name] {
		if len(m.brokers) >= maxBrokers {
			return "other"
		}
		m.brokers[name] = true
	}
	return name
}

func (m *metrics) onBreaker(broker string, open bool) {
	m.breaker.WithLabelValues(m.broker(broker)).Set(oneIf(open))
}

func oneIf(condition bool) float64 {
	if condition {
		return 1
	}
	return 0
}

func (m *metrics) call(broker string, took time.Duration, f *Failure) {
	outcome := refreshed
	if f != nil {
		outcome = string(f.Class)
	}
	label := m.broker(broker)
	m.refreshes.WithLabelValues(label, outcome).Inc()
	m.duration.WithLabelValues(label).Observe(took.Seconds())
}

func (m *metrics) report(label, outcome string) {
	m.refused.WithLabelValues(label, outcome).Inc()
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.reports[label]
	r.Broker = label
	r.Reports++
	if outcome == events.RefusedRefreshed {
		r.Refreshed++
	}
	m.reports[label] = r
}

func (m *metrics) reportsByBroker() []BrokerReports {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.reports), func(a, b BrokerReports) int { return cmp.Compare(a.Broker, b.Broker) })
}
