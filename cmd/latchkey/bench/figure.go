package bench

import (
	"fmt"
	"slices"
)

// Figure is what was measured of one kind of work, in units a second.
type Figure struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	// Users is how many took part in each round.
	Users int `json:"users"`
	// Latchkey and Bare hold one value a round, and their 99th percentiles in
	// milliseconds where single answers were timed.
	Latchkey    []float64 `json:"latchkey"`
	Bare        []float64 `json:"bare"`
	LatchkeyP99 []float64 `json:"latchkeyP99,omitempty"`
	BareP99     []float64 `json:"bareP99,omitempty"`
	// Against says what Bare is.
	Against string `json:"against"`
}

// Ratio is the median of Latchkey to that of Bare.
func (f Figure) Ratio() float64 { return Median(f.Latchkey) / Median(f.Bare) }

// Ratios holds the ratio of each round.
func (f Figure) Ratios() []float64 { return Ratios(f.Latchkey, f.Bare) }

// Ratios divides the values of one list by those of another, as far as both go.
func Ratios(values, by []float64) []float64 {
	var out []float64
	for i := range min(len(values), len(by)) {
		out = append(out, values[i]/by[i])
	}
	return out
}

// Median returns the middle of values; 0 of none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// Spread returns the least and the greatest of values in a form for numbers;
// empty unless there are several.
func Spread(format string, values []float64) string {
	if len(values) < 2 {
		return ""
	}
	return fmt.Sprintf(format+"…"+format, slices.Min(values), slices.Max(values))
}
