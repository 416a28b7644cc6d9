package meshsim

import "slices"

// Violations returns the reuses that neither grace nor a lost answer excuses.
func (l Ledger) Violations() []Reuse {
	return slices.DeleteFunc(l.ReplacedPresented(), func(r Reuse) bool { return r.WithinGrace || r.Ambiguous })
}

// UndeliveredAnswers returns the requests whose tokens did not reach the client.
func (l Ledger) UndeliveredAnswers() (out []Request) {
	for _, q := range l.Requests {
		if (q.Issued || q.Rotated) && q.Undelivered != "" {
			out = append(out, q)
		}
	}
	return out
}
