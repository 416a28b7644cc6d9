package refresher

import (
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
)

// record adds an audit record of what was done with a grant's tokens. It never waits: an
// answer of Mesh must not be held up.
func (r *Refresher) record(action audit.Action, outcome string, g *store.Grant) {
	r.deps.Audit.Add(g.AuditRecord(action, outcome, g.AccountIDs()))
}
