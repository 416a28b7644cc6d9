package bench

import (
	"fmt"

	"github.com/latchkey/latchkey/cmd/latchkey/bench"
)

type Row struct {
	Figure   string    `json:"figure"`
	Unit     string    `json:"unit"`
	Values   []float64 `json:"values"`             // one a round; none: it was not measured, and Method says why
	Baseline []float64 `json:"baseline,omitempty"` // likewise, if there is one
	Against  string    `json:"against,omitempty"`  // what the baseline is
	Method   string    `json:"method"`
	Target   *Target   `json:"target,omitempty"` // of Ratio, or without a baseline of the value
	Ratio    float64   `json:"ratio,omitempty"`  // the median of values to that of the baseline; 0 without one, or where that is 0
	Met      *bool     `json:"met,omitempty"`
}

// Target is a lower bound, or an upper one.
type Target struct {
	Bound float64 `json:"bound"`
	Upper bool    `json:"upper,omitempty"`
}

func AtLeast(bound float64) Target { return Target{Bound: bound} }

func AtMost(bound float64) Target { return Target{Bound: bound, Upper: true} }

func (t Target) met(measured float64) bool {
	if t.Upper {
		return measured <= t.Bound
	}
	return measured >= t.Bound
}

func (r Row) measured() float64 {
	if len(r.Baseline) > 0 {
		return bench.Median(r.Values) / bench.Median(r.Baseline)
	}
	return bench.Median(r.Values)
}

func (r *Row) judge() {
	if bench.Median(r.Baseline) != 0 {
		r.Ratio = r.measured()
	}
	if r.Target != nil {
		r.Met = new(r.Target.met(r.measured()))
	}
}

func (r Row) cells() []string {
	cells := []string{r.Figure, number(bench.Median(r.Values)) + " " + r.Unit, "", "", "", "", ""}
	if len(r.Values) == 0 {
		cells[1] = r.Method
	}
	if len(r.Baseline) > 0 {
		cells[2] = number(bench.Median(r.Baseline))
	}
	if r.Ratio != 0 {
		cells[3] = fmt.Sprintf("%.2f", r.Ratio)
		cells[4] = bench.Spread("%.2f", bench.Ratios(r.Values, r.Baseline))
	} else if len(r.Values) > 1 {
		cells[4] = bench.Spread("%.3g", r.Values)
	}
	if r.Target != nil {
		cells[5] = fmt.Sprintf("≥ %g", r.Target.Bound)
		if r.Target.Upper {
			cells[5] = fmt.Sprintf("≤ %g", r.Target.Bound)
		}
		cells[6] = "missed"
		if *r.Met {
			cells[6] = "met"
		}
	}
	return cells
}

var columns = []string{"Figure", "Latchkey", "Baseline", "Ratio", "Spread", "Target", ""}

func (r Row) String() string {
	c := r.cells()
	if len(r.Baseline) == 0 {
		return fmt.Sprintf("%s: %s  %s %s", c[0], c[1], c[5], c[6])
	}
	return fmt.Sprintf("%s: %s to %s = %s (%s)  %s %s", c[0], c[1], c[2], c[3], c[4], c[5], c[6])
}

func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 1:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
