package operator

import (
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

// count reads a worker's metrics. Those that can't be read count as 0.
func count(metrics prometheus.Gatherer) (w Work, l Lateness) {
	var late *dto.Histogram
	families, _ := metrics.Gather() // it returns what it could read even with an error
	for _, family := range families {
		for _, m := range family.Metric {
			switch family.GetName() {
			case "latchkey_refreshes_total":
				for _, label := range m.Label {
					switch n := uint64(m.GetCounter().GetValue()); {
					case label.GetName() != "outcome":
					case label.GetValue() == "refreshed":
						w.Refreshed += n
					default:
						w.Failed += n
					}
				}
			case "latchkey_refresh_lateness_seconds":
				late = added(late, m.GetHistogram())
			}
		}
	}
	if late.GetSampleCount() > 0 {
		l = Lateness{Refreshes: late.GetSampleCount(), Within50: within(late, 0.5), Within99: within(late, 0.99)}
	}
	return w, l
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
