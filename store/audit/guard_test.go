//go:build !race

package audit

import (
	"testing"
	"time"
)

// TestGuardAllocations fails when encoding a record, which is done for every
// request, takes half as many allocations again as it did. The race detector
// makes more.
func TestGuardAllocations(t *testing.T) {
	r := Record{
		At: time.Now().UTC(), Action: HandedOut, Outcome: OutcomeOK, User: "user", Caller: &Caller{Inbox: "_INBOX_portfolio"},
		Grants: []Grant{{ID: "grant", Broker: "coinbase", Version: 3, Accounts: []string{"cb-1", "cb-2"}}},
	}
	n := testing.AllocsPerRun(200, func() {
		if _, err := r.encode(maxBatch); err != nil {
			t.Error(err)
		}
	})
	if n > 4 {
		t.Errorf("%v allocations, at most 4 are expected", n)
	}
}
