package operator

import (
	"cmp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Work counts a worker's refreshes since it started. Workers publish it in $SRV.STATS.
type Work struct {
	// Refreshed counts refreshes that brought tokens, Failed all others.
	Refreshed uint64 `json:"refreshed"`
	Failed    uint64 `json:"failed"`
}

// Lateness says how late a worker's refreshes have begun since it started.
type Lateness struct {
	Refreshes uint64 `json:"refreshes"`
	// Within50 and Within99 are the median and the 99th percentile in seconds, rounded
	// up to a bound of the histogram; -1: above all bounds.
	Within50 float64 `json:"within50"`
	Within99 float64 `json:"within99"`
}

// Outcomes counts a worker's refreshes at one broker since it started.
type Outcomes struct {
	Broker string `json:"broker"`
	Work
	// Errors counts those that failed by their outcome.
	Errors []ErrorCount `json:"errors"`
}

// count reads a worker's metrics. Those that can't be read count as 0. Brokers with the
// most failures come first.
func count(metrics prometheus.Gatherer) (w Work, brokers []Outcomes, l Lateness) {
	var late *dto.Histogram
	failed := map[string]map[string]int64{}
	byBroker := map[string]*Outcomes{}
	families, _ := metrics.Gather() // it returns what it could read even with an error
	for _, family := range families {
		for _, m := range family.Metric {
			switch family.GetName() {
			case "latchkey_refreshes_total":
				labels := map[string]string{}
				for _, label := range m.Label {
					labels[label.GetName()] = label.GetValue()
				}
				broker, outcome, n := labels["broker"], labels["outcome"], uint64(m.GetCounter().GetValue())
				b := byBroker[broker]
				if b == nil {
					b = &Outcomes{Broker: broker}
					byBroker[broker], failed[broker] = b, map[string]int64{}
				}
				if outcome == "refreshed" {
					w.Refreshed += n
					b.Refreshed += n
				} else {
					w.Failed += n
					b.Failed += n
					failed[broker][outcome] += int64(n)
				}
			case "latchkey_refresh_lateness_seconds":
				late = added(late, m.GetHistogram())
			}
		}
	}
	if late.GetSampleCount() > 0 {
		l = Lateness{Refreshes: late.GetSampleCount(), Within50: within(late, 0.5), Within99: within(late, 0.99)}
	}
	for _, b := range byBroker {
		b.Errors = errorCounts(failed[b.Broker])
		brokers = append(brokers, *b)
	}
	slices.SortFunc(brokers, func(a, b Outcomes) int {
		return cmp.Or(cmp.Compare(b.Failed, a.Failed), cmp.Compare(b.Refreshed, a.Refreshed), cmp.Compare(a.Broker, b.Broker))
	})
	return w, brokers, l
}

// added returns the sum of two histograms with the same bounds; a nil one is empty.
func added(a, b *dto.Histogram) *dto.Histogram {
	if a == nil {
		return b
	}
	sum := &dto.Histogram{SampleCount: new(a.GetSampleCount() + b.GetSampleCount())}
	for i, bucket := range a.GetBucket() {
		n := bucket.GetCumulativeCount() + b.GetBucket()[i].GetCumulativeCount()
		sum.Bucket = append(sum.Bucket, &dto.Bucket{UpperBound: new(bucket.GetUpperBound()), CumulativeCount: new(n)})
	}
	return sum
}

// within returns the least bound of a histogram under which a share of its samples lies, or -1.
func within(h *dto.Histogram, share float64) float64 {
	for _, b := range h.GetBucket() {
		if float64(b.GetCumulativeCount()) >= share*float64(h.GetSampleCount()) {
			return b.GetUpperBound()
		}
	}
	return -1
}
