package operator

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/streams"
)

// Readiness is whether this worker can work.
type Readiness struct {
	Ready  bool    `json:"ready"`
	Checks []Check `json:"checks"`
}

// Check is the state of something that a worker depends on.
type Check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Needed: without it the worker is not ready.
	Needed bool   `json:"needed"`
	Detail string `json:"detail,omitempty"`
}

// Overview describes the installation, and the worker that serves the page.
type Overview struct {
	At       time.Time `json:"at"`
	WorkerID string    `json:"workerId"`
	// Of the installation.
	Stock    part[Stock]             `json:"stock"`
	Schedule part[Schedule]          `json:"schedule"`
	Overdue  part[Overdue]           `json:"overdue"`
	Failing  part[Failing]           `json:"failing"`
	Queues   part[[]streams.Backlog] `json:"queues"`
	Letters  part[uint64]            `json:"letters"`
	Workers  part[[]Worker]          `json:"workers"`
	// Verdicts lists brokers at which refresh tokens were refused in a row, or about
	// which an operator has decided.
	Verdicts part[[]view.Verdicts] `json:"verdicts"`
	// Of this worker.
	Readiness part[Readiness] `json:"readiness"`
	Own       own             `json:"own"`
	// Conditions lists what is wrong, the worst first.
	Conditions []Condition `json:"conditions"`
}

// Stock counts all grants.
type Stock struct {
	ByState map[store.State]int64 `json:"byState"`
	Brokers []brokerStock         `json:"brokers"`
	// More counts the grants of brokers that are not listed.
	More int64 `json:"more,omitempty"`
}

type brokerStock struct {
	Broker  string                `json:"broker"`
	ByState map[store.State]int64 `json:"byState"`
	Total   int64                 `json:"total"`
}

// maxBrokers bounds lists of brokers: new broker types appear without notice.
const maxBrokers = 50

func (p *Page) countStock(ctx context.Context) (Stock, error) {
	tallies, err := p.Store.Tallies(ctx)
	if err != nil {
		return Stock{}, err
	}
	stock := Stock{ByState: map[store.State]int64{}}
	brokers := map[string]brokerStock{}
	for _, t := range tallies {
		stock.ByState[t.State] += t.Grants
		b := brokers[t.Broker]
		if b.ByState == nil {
			b = brokerStock{Broker: t.Broker, ByState: map[store.State]int64{}}
		}
		b.ByState[t.State] += t.Grants
		b.Total += t.Grants
		brokers[t.Broker] = b
	}
	stock.Brokers = slices.SortedFunc(maps.Values(brokers), func(a, b brokerStock) int {
		return cmp.Or(cmp.Compare(b.Total, a.Total), cmp.Compare(a.Broker, b.Broker))
	})
	for _, b := range stock.Brokers[min(maxBrokers, len(stock.Brokers)):] {
		stock.More += b.Total
	}
	stock.Brokers = atMost(maxBrokers, stock.Brokers)
	return stock, nil
}

// Schedule counts the actions that are due in each of the next spans of time.
type Schedule struct {
	From    time.Time `json:"from"`
	Seconds int       `json:"seconds"`
	Due     []int64   `json:"due"`
	// Most is where counting a span stops.
	Most int64 `json:"most"`
}

const (
	spanWidth = 15 * time.Minute
	spans     = 24
	maxInSpan = 100_000
)

func (p *Page) countDue(ctx context.Context) (Schedule, error) {
	now := p.Now().UTC()
	s := Schedule{From: now, Seconds: int(spanWidth / time.Second), Due: make([]int64, spans), Most: maxInSpan}
	for i := range s.Due {
		from := now.Add(time.Duration(i) * spanWidth)
		var err error
		if s.Due[i], err = p.Store.CountDue(ctx, from, from.Add(spanWidth), maxInSpan); err != nil {
			return Schedule{}, err
		}
	}
	return s, nil
}

// Overdue describes grants whose next action is overdue.
type Overdue struct {
	Grants int64 `json:"grants"`
	// Since is when the first of them was due.
	Since *time.Time `json:"since,omitempty"`
	Most  int64      `json:"most"`
}

// maxOverdue is where counting overdue grants stops.
const maxOverdue = 10_000

func (p *Page) findOverdue(ctx context.Context) (Overdue, error) {
	now := p.Now()
	o := Overdue{Most: maxOverdue}
	var err error
	if o.Grants, err = p.Store.CountDue(ctx, time.Time{}, now, maxOverdue); err != nil {
		return o, err
	}
	first, err := p.Store.DueBefore(ctx, now, 1)
	if err == nil && len(first) > 0 {
		o.Since = &first[0].Due.At
	}
	return o, err
}

// Failing describes the active grants whose last refresh failed.
type Failing struct {
	Brokers []FailingAt `json:"brokers"`
	// More: there are older failures, which are not counted.
	More bool `json:"more"`
}

// FailingAt is Failing at one broker.
type FailingAt struct {
	Broker string       `json:"broker"`
	Grants int64        `json:"grants"`
	Latest time.Time    `json:"latest"`
	Errors []ErrorCount `json:"errors"`
}

// ErrorCount counts grants, or refreshes, by the word for their error; the most first.
type ErrorCount struct {
	Error string `json:"error"`
	Count int64  `json:"count"`
}

// maxFailing is where counting failures stops, of whatever grants.
const maxFailing = 10_000

func (p *Page) countFailing(ctx context.Context) (Failing, error) {
	tallies, more, err := p.Store.TallyFailing(ctx, maxFailing)
	f := Failing{Brokers: []FailingAt{}, More: more}
	for _, t := range tallies[:min(maxBrokers, len(tallies))] {
		f.Brokers = append(f.Brokers, FailingAt{Broker: t.Broker, Grants: t.Grants, Latest: t.Latest, Errors: errorCounts(t.Errors)})
	}
	return f, err
}

// maxErrors bounds how many errors are listed of one broker.
const maxErrors = 20

func errorCounts(counts map[string]int64) []ErrorCount {
	all := []ErrorCount{}
	for word, n := range counts {
		all = append(all, ErrorCount{word, n})
	}
	slices.SortFunc(all, func(a, b ErrorCount) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Error, b.Error)) })
	return atMost(maxErrors, all)
}

// own is what only this worker knows.
type own struct {
	PausedUntil *time.Time                `json:"pausedUntil,omitempty"`
	Running     int                       `json:"running"`
	Waiting     int                       `json:"waiting"`
	Rate        float64                   `json:"rate"`
	FullRate    float64                   `json:"fullRate"`
	Brokers     []refresher.BrokerStatus  `json:"brokers"`
	Refused     []refresher.BrokerReports `json:"refused"`
	Lateness    Lateness                  `json:"lateness"`
	Work        Work                      `json:"work"`
	Outcomes    []Outcomes                `json:"outcomes"`
}

func (p *Page) own() own {
	s := p.Refresher.Status()
	o := own{Running: s.Running, Waiting: s.Waiting, Rate: s.Rate, FullRate: s.FullRate}
	o.Work, o.Outcomes, o.Lateness = count(p.Metrics)
	o.Outcomes = atMost(maxBrokers, o.Outcomes)
	if !s.PausedUntil.IsZero() {
		o.PausedUntil = &s.PausedUntil
	}
	// Brokers in trouble come first, in case there are too many to show.
	slices.SortStableFunc(s.Brokers, func(a, b refresher.BrokerStatus) int { return cmp.Compare(trouble(b), trouble(a)) })
	o.Brokers = atMost(maxBrokers, s.Brokers)
	slices.SortStableFunc(s.Refused, func(a, b refresher.BrokerReports) int { return cmp.Compare(b.Reports, a.Reports) })
	o.Refused = atMost(maxBrokers, s.Refused)
	return o
}

// atMost returns the first n of a list as a list of its own, which is an array in JSON
// even if it is empty.
func atMost[T any](n int, all []T) []T { return append([]T{}, all[:min(n, len(all))]...) }

func trouble(b refresher.BrokerStatus) int {
	switch {
	case b.Breaker != "closed":
		return 2
	case b.Rate < b.FullRate:
		return 1
	}
	return 0
}

// readiness reads the state of this worker. When something is back, it has everything else
// that hangs or has failed be read again.
func (p *Page) readiness(ctx context.Context) (Readiness, error) {
	now := p.Ready(ctx)
	before := p.ready.Swap(&now)
	back := func(c Check) bool {
		return c.OK && before != nil && slices.ContainsFunc(before.Checks, func(b Check) bool { return b.Name == c.Name && !b.OK })
	}
	if slices.ContainsFunc(now.Checks, back) {
		for _, forget := range []func(){p.stock.forget, p.schedule.forget, p.overdue.forget, p.failing.forget, p.queues.forget, p.letters.forget, p.verdicts.forget, p.workers.forget} {
			forget()
		}
	}
	return now, nil
}

// read reads the parts side by side: one that hangs holds up none of the others.
func (p *Page) read(ctx context.Context, o *Overview) {
	var parts sync.WaitGroup
	parts.Go(func() { o.Readiness = p.state.get(ctx, p) })
	parts.Go(func() { o.Stock = p.stock.get(ctx, p) })
	parts.Go(func() { o.Schedule = p.schedule.get(ctx, p) })
	parts.Go(func() { o.Overdue = p.overdue.get(ctx, p) })
	parts.Go(func() { o.Failing = p.failing.get(ctx, p) })
	parts.Go(func() { o.Letters = p.letters.get(ctx, p) })
	parts.Go(func() { o.Verdicts = p.verdicts.get(ctx, p) })
	parts.Go(func() { o.Queues = p.queues.get(ctx, p) })
	parts.Go(func() { o.Workers = p.workers.get(ctx, p) })
	parts.Wait()
}

func (p *Page) overview(r *http.Request) (any, error) {
	o := &Overview{At: p.Now(), WorkerID: p.WorkerID, Own: p.own()}
	p.read(r.Context(), o)
	o.At = p.Now()
	o.Failing.Value.Brokers = atMost(len(o.Failing.Value.Brokers), o.Failing.Value.Brokers)
	o.Queues.Value = atMost(len(o.Queues.Value), o.Queues.Value)
	o.Workers.Value = slices.Clone(o.Workers.Value)
	for i := range o.Workers.Value {
		if w := &o.Workers.Value[i]; w.Self { // its own figures are up to date
			w.Work = o.Own.Work
		}
	}
	o.Conditions = conditions(o)
	return o, nil
}
