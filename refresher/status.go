package refresher

import (
	"cmp"
	"slices"
	"time"
)

// Status is the present state of this worker's limits.
type Status struct {
	// PausedUntil is the end of the pause while Mesh refuses the credentials; zero: none.
	PausedUntil      time.Time
	Running, Waiting int // refreshes of all brokers
	// Rate is how many may start a second, FullRate this worker's share of what is configured.
	Rate, FullRate float64
	// Brokers lists those with refreshes since the worker started.
	Brokers []BrokerStatus
	// Refused counts the reports of refused access tokens since the worker started.
	Refused []BrokerReports
}

// BrokerReports counts the reports of refused access tokens of one broker.
type BrokerReports struct {
	Broker string `json:"broker"` // the key of the broker type
	// Reports are all of them, Refreshed those for which a grant was refreshed.
	Reports   int `json:"reports"`
	Refreshed int `json:"refreshed"`
}

// BrokerStatus is a Status of one broker.
type BrokerStatus struct {
	Broker string `json:"broker"` // the key of the broker type
	// Breaker is one of "closed" (refreshes pass), "open" (they are suspended)
	// and "half-open" (one is tried).
	Breaker  string  `json:"breaker"`
	Running  int     `json:"running"`
	Waiting  int     `json:"waiting"`
	Rate     float64 `json:"rate"`
	FullRate float64 `json:"fullRate"`
}

// Status returns the present state.
func (r *Refresher) Status() Status {
	s := r.queue.status()
	s.Refused = r.metrics.reportsByBroker()
	return s
}

func (q *Queue) status() Status {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.limits.status()
	s.Running, s.Waiting = q.running, q.waiting
	for i := range s.Brokers {
		if l := q.brokers[s.Brokers[i].Broker]; l != nil {
			s.Brokers[i].Waiting = len(l.waiters)
		}
	}
	return s
}

func (l *Limits) status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{Rate: float64(l.overall.limiter.Limit()), FullRate: float64(l.overall.full)}
	if l.now().Before(l.paused) {
		s.PausedUntil = l.paused
	}
	for name, b := range l.brokers {
		s.Brokers = append(s.Brokers, BrokerStatus{
			Broker: name, Breaker: b.breaker.State().String(), Running: b.running,
			Rate: float64(b.rate.limiter.Limit()), FullRate: float64(b.rate.full),
		})
	}
	slices.SortFunc(s.Brokers, func(a, b BrokerStatus) int { return cmp.Compare(a.Broker, b.Broker) })
	return s
}
