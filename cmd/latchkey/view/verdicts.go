package view

import (
	"time"

	"github.com/latchkey/latchkey/store"
)

// Verdicts describes how Mesh judges the refresh tokens of a broker.
type Verdicts struct {
	Broker    string         `json:"broker"`
	HeldSince *time.Time     `json:"heldSince,omitempty"`
	Decided   store.Decision `json:"decided,omitempty"`
	// Refused counts the grants that were refused in a row, FirstAt and LastAt say when.
	Refused int        `json:"refused"`
	FirstAt *time.Time `json:"firstAt,omitempty"`
	LastAt  *time.Time `json:"lastAt,omitempty"`
}

// OfVerdicts returns the view of a broker's verdicts.
func OfVerdicts(v *store.Verdicts) Verdicts {
	out := Verdicts{Broker: v.Broker, HeldSince: v.HeldSince, Decided: v.Decided, Refused: len(v.Refused)}
	if n := len(v.Refused); n > 0 {
		out.FirstAt, out.LastAt = &v.Refused[0].At, &v.Refused[n-1].At
	}
	return out
}
