package refresher

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events/options"
	"github.com/latchkey/latchkey/events/pause"
	"github.com/latchkey/latchkey/store"
)

// GrantStats measures what the database contains: the grants by state, and what should have been
// done already. It shows what no worker's own counters can: that work which nobody does
// grows old.
type GrantStats struct {
	refresher *Refresher
	config    config.Reconcile

	away map[string]bool // the measurements that fail at present

	mu      sync.Mutex
	grants  map[stockLabels]int64
	overdue map[string]store.OverdueTally // by broker label
}

type stockLabels struct{ state, broker string }

const (
	// countEvery is the least time between two counts of all grants. A count walks a whole
	// index, and every worker counts: it takes at most one part in countShare of the time.
	countEvery = 5 * time.Minute
	countShare = 500
	// A search for what is overdue takes at most one part in overdueShare of the time: when much
	// is, the database has other work.
	overdueShare = 50
	// maxOverdue is up to where overdue grants are counted.
	maxOverdue = 10_000
)

var (
	stockGrants = prometheus.NewDesc("latchkey_grants", "Grants in the database, by state and broker type.", []string{"state", "broker"}, nil)
	stockLate   = prometheus.NewDesc("latchkey_overdue_grants", "Grants whose next action was due longer ago than reconcile.slack, by broker type.", []string{"broker"}, nil)
	stockAge    = prometheus.NewDesc("latchkey_overdue_seconds", "How long ago the longest overdue action was due, by broker type.", []string{"broker"}, nil)
)

// GrantStatsOptions for NewGrantStats; all are required.
type GrantStatsOptions struct {
	Refresher *Refresher
	Config    config.Reconcile
}

// NewGrantStats returns a GrantStats that is among the Refresher's metrics and measures once it runs.
func NewGrantStats(o GrantStatsOptions) (*GrantStats, error) {
	if err := options.Require("statistics of grants", o, "Refresher", "Config"); err != nil {
		return nil, err
	}
	s := &GrantStats{refresher: o.Refresher, config: o.Config, away: map[string]bool{}}
	o.Refresher.deps.Metrics.MustRegister(s)
	return s, nil
}

// Run measures until ctx ends. How long a measurement takes is the machine's business: the
// injected clock may be set while it lasts.
func (s *GrantStats) Run(ctx context.Context) {
	var counted time.Time
	var rest time.Duration
	for ctx.Err() == nil {
		began := time.Now()
		if began.Sub(counted) >= rest {
			rest = countEvery
			if s.count(ctx) == nil {
				rest = max(rest, countShare*time.Since(began))
			}
			counted = time.Now()
		}
		began = time.Now()
		wait := s.config.Interval
		if s.findOverdue(ctx) == nil { // how long one waits for a database that is away says nothing
			wait = max(wait, overdueShare*time.Since(began))
		}
		_ = pause.For(ctx, wait) // the loop sees that ctx has ended
	}
}

// findOverdue searches for what is overdue. What can't be read is not shown: an old answer
// would say that all is well.
func (s *GrantStats) findOverdue(ctx context.Context) error {
	deps := s.refresher.deps
	tallies, err := deps.Store.TallyOverdue(ctx, deps.Now().Add(-s.config.Slack), maxOverdue)
	s.logFailure(ctx, "overdue grants", err)
	overdue := map[string]store.OverdueTally{}
	for _, t := range tallies {
		label := s.refresher.metrics.broker(t.Broker)
		sum, known := overdue[label] // of several where there are too many brokers for a label each
		if !known || t.Since.Before(sum.Since) {
			sum.Since = t.Since
		}
		sum.Grants += t.Grants
		overdue[label] = sum
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.overdue = overdue
	return err
}

func (s *GrantStats) count(ctx context.Context) error {
	tallies, err := s.refresher.deps.Store.Tallies(ctx)
	s.logFailure(ctx, "grants by state", err)
	// Should there be too many brokers, those with the most grants have a label each.
	slices.SortFunc(tallies, func(a, b store.Tally) int { return cmp.Compare(b.Grants, a.Grants) })
	grants := map[stockLabels]int64{}
	for _, t := range tallies {
		grants[stockLabels{string(t.State), s.refresher.metrics.broker(t.Broker)}] += t.Grants
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grants = grants
	return err
}

// logFailure logs a measurement that begins to fail. A database that is too large to be counted
// in time stays so.
func (s *GrantStats) logFailure(ctx context.Context, what string, err error) {
	if err != nil && ctx.Err() == nil && !s.away[what] {
		s.refresher.deps.Log.Warn("metrics of what is stored are missing while the database can't be read", zap.String("what", what), zap.Error(err))
	}
	s.away[what] = err != nil
}

// Describe implements prometheus.Collector.
func (s *GrantStats) Describe(to chan<- *prometheus.Desc) {
	to <- stockGrants
	to <- stockLate
	to <- stockAge
}

// Collect implements prometheus.Collector. What is overdue grows older between two searches.
func (s *GrantStats) Collect(to chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for labels, n := range s.grants {
		to <- prometheus.MustNewConstMetric(stockGrants, prometheus.GaugeValue, float64(n), labels.state, labels.broker)
	}
	now := s.refresher.deps.Now()
	for broker, t := range s.overdue {
		to <- prometheus.MustNewConstMetric(stockLate, prometheus.GaugeValue, float64(t.Grants), broker)
		to <- prometheus.MustNewConstMetric(stockAge, prometheus.GaugeValue, now.Sub(t.Since).Seconds(), broker)
	}
}
