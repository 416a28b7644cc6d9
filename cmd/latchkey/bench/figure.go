package bench

import (
	"fmt"
	"slices"
)

// Figure is the measurement of one kind of work, in units a second.
type Figure struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	// Users is the number of users in each round.
	Users int `json:"users"`
	// Latchkey and Bare hold one value a round. The 99th percentiles are in
	// milliseconds, and only there if single answers were timed.
	Latchkey    []float64 `json:"latchkey"`
	Bare        []float64 `json:"bare"`
	LatchkeyP99 []float64 `json:"latchkeyP99,omitempty"`
	BareP99     []float64 `json:"bareP99,omitempty"`
	// Against says what Bare measures.
	Against string `json:"against"`
}

// Ratio returns the ratio of the medians of Latchkey and Bare.
func (f Figure) Ratio() float64 { return Median(f.Latchkey) / Median(f.Bare) }

// Ratios returns the ratio of each round.
func (f Figure) Ratios() []float64 { return Ratios(f.Latchkey, f.Bare) }

// Ratios divides the values of one list by those of another, up to the end of the
// shorter one.
func Ratios(values, by []float64) []float64 {
	var ratios []float64
	for i := range min(len(values), len(by)) {
		ratios = append(ratios, values[i]/by[i])
	}
	return ratios
}

// Median returns the median of values, or 0 if there are none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// Spread formats the least and the greatest value; it returns "" for fewer than two
// values.
func Spread(format string, values []float64) string {
	if len(values) < 2 {
		return ""
	}
	return fmt.Sprintf(format+"…"+format, slices.Min(values), slices.Max(values))
}
