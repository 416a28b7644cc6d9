package operator

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// slotWidth and slots say how far this worker's memory of its own work goes
	// back: six hours.
	slotWidth = 5 * time.Minute
	slots     = 72
	// sampleEvery is how often the counters are looked at.
	sampleEvery = 10 * time.Second
)

// Work is what a worker did, by slots of time that are the same for all
// workers: slot 0 begins at From. Every worker tells its own in $SRV.STATS.
type Work struct {
	From time.Time `json:"from"`
	// Seconds is the width of a slot.
	Seconds int `json:"seconds"`
	// Refreshed counts refreshes that brought tokens, Failed all others that
	// were called for.
	Refreshed []int `json:"refreshed"`
	Failed    []int `json:"failed"`
}

// history remembers what this worker's counters said, in a ring of slots.
type history struct {
	gather prometheus.Gatherer
	now    func() time.Time

	mu   sync.Mutex
	ring [slots]slot
	last sample
}

type slot struct {
	start             time.Time
	refreshed, failed int
	late              []uint64
}

// sample is what the counters said at one time.
type sample struct {
	refreshed, failed float64
	// late counts refreshes by the bounds of how late they began, the last for
	// those beyond all bounds.
	late   []uint64
	bounds []float64
}

func (h *history) read() (sample, error) {
	var s sample
	families, err := h.gather.Gather()
	if err != nil {
		return s, err
	}
	for _, f := range families {
		switch f.GetName() {
		case "latchkey_refreshes_total":
			for _, m := range f.Metric {
				for _, l := range m.Label {
					switch {
					case l.GetName() != "outcome":
					case l.GetValue() == "refreshed":
						s.refreshed += m.GetCounter().GetValue()
					default:
						s.failed += m.GetCounter().GetValue()
					}
				}
			}
		case "latchkey_refresh_lateness_seconds":
			for _, m := range f.Metric {
				before := uint64(0)
				for _, b := range m.GetHistogram().Bucket {
					s.bounds = append(s.bounds, b.GetUpperBound())
					s.late = append(s.late, b.GetCumulativeCount()-before)
					before = b.GetCumulativeCount()
				}
				s.late = append(s.late, m.GetHistogram().GetSampleCount()-before)
			}
		}
	}
	return s, nil
}

// sample adds what happened since the last one to the present slot.
func (h *history) sample() {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, err := h.read()
	if err != nil {
		return // the next look counts what this one missed
	}
	at := h.slot(h.now().Truncate(slotWidth))
	at.refreshed += int(s.refreshed - h.last.refreshed)
	at.failed += int(s.failed - h.last.failed)
	if at.late == nil {
		at.late = make([]uint64, len(s.late))
	}
	for i := range s.late {
		at.late[i] += s.late[i]
		if i < len(h.last.late) {
			at.late[i] -= h.last.late[i]
		}
	}
	h.last = s
}

// slot returns the slot of the ring that begins at start, emptied if it was
// last used for an earlier time.
func (h *history) slot(start time.Time) *slot {
	s := &h.ring[int(start.Unix()/int64(slotWidth/time.Second))%slots]
	if !s.start.Equal(start) {
		*s = slot{start: start}
	}
	return s
}

// work returns the ring, oldest slot first.
func (h *history) work() Work {
	h.sample()
	h.mu.Lock()
	defer h.mu.Unlock()
	from := h.now().Truncate(slotWidth).Add(-(slots - 1) * slotWidth)
	w := Work{From: from.UTC(), Seconds: int(slotWidth / time.Second), Refreshed: make([]int, slots), Failed: make([]int, slots)}
	for i := range slots {
		start := from.Add(time.Duration(i) * slotWidth)
		if s := h.ring[int(start.Unix()/int64(slotWidth/time.Second))%slots]; s.start.Equal(start) {
			w.Refreshed[i], w.Failed[i] = s.refreshed, s.failed
		}
	}
	return w
}

// Lateness is how late this worker's refreshes of the last hour began.
type Lateness struct {
	Refreshes uint64 `json:"refreshes"`
	// Within50 and Within99 are the seconds within which half and 99 of 100
	// began, rounded up to a bound of the histogram; -1: later than all bounds.
	Within50 float64 `json:"within50"`
	Within99 float64 `json:"within99"`
}

func (h *history) lateness() Lateness {
	h.sample()
	h.mu.Lock()
	defer h.mu.Unlock()
	var l Lateness
	sum := make([]uint64, len(h.last.late))
	since := h.now().Add(-time.Hour).Truncate(slotWidth)
	for _, s := range h.ring {
		if s.start.Before(since) {
			continue
		}
		for i, n := range s.late {
			sum[i] += n
			l.Refreshes += n
		}
	}
	within := func(share float64) float64 {
		seen := uint64(0)
		for i, n := range sum {
			if seen += n; float64(seen) >= share*float64(l.Refreshes) {
				if i < len(h.last.bounds) {
					return h.last.bounds[i]
				}
				break
			}
		}
		return -1
	}
	if l.Refreshes > 0 {
		l.Within50, l.Within99 = within(0.5), within(0.99)
	}
	return l
}
