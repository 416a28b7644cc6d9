package view

import (
	"time"

	"github.com/latchkey/latchkey/store"
)

// Verdicts is what is shown of how refresh tokens fare at a broker.
type Verdicts struct {
	Broker    string         `json:"broker"`
	HeldSince *time.Time     `json:"heldSince,omitempty"`
	Decided   store.Decision `json:"decided,omitempty"`
	// Refused is how many grants were refused in a row, FirstAt and LastAt when.
	Refused int        `json:"refused"`
	FirstAt *time.Time `json:"firstAt,omitempty"`
	LastAt  *time.Time `json:"lastAt,omitempty"`
}

// OfVerdicts returns what is shown of a broker.
func OfVerdicts(v *store.Verdicts) Verdicts {
	out := Verdicts{Broker: v.Broker, HeldSince: v.HeldSince, Decided: v.Decided, Refused: len(v.Refused)}
	if n := len(v.Refused); n > 0 {
		out.FirstAt, out.LastAt = &v.Refused[0].At, &v.Refused[n-1].At
	}
	return out
}
