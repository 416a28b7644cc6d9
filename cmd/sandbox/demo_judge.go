package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/latchkey/latchkey/events"
)

// errAmiss: the summary of the demo shows a fault.
var errAmiss = errors.New("the demo found something amiss; see the summary")

// judge requests all users' tokens once more, compares what subscribers heard with the
// simulator's ledger, and prints the summary.
func (d *demoShow) judge(ctx context.Context) error {
	fmt.Fprintln(d.out)
	results := map[string]string{}
	for _, u := range demoUsers() {
		code, valid, given := d.ask(ctx, u.name)
		switch {
		case code != u.wantCode:
			results[u.name] = fmt.Sprintf("AMISS: answer %q, wanted %q", code, u.wantCode)
		case code == "" && (given == 0 || valid != given):
			results[u.name] = fmt.Sprintf("AMISS: %d of %d tokens are valid", valid, given)
		case code == "":
			results[u.name] = fmt.Sprintf("%d valid tokens", given)
		default:
			results[u.name] = "refused as it must be: " + code
		}
	}
	if err := d.stack.Mesh.WaitIdle(ctx); err != nil {
		return fmt.Errorf("waiting for the simulator: %w", err)
	}
	ledger := d.stack.Mesh.Ledger()
	amiss := false

	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintln(d.out, "\nSummary: refreshes by the institutions' ledger, events by what a subscriber heard")
	w := tabwriter.NewWriter(d.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "USER\tBROKER\tREFRESHED (LEDGER)\tREFRESHED\tSTORED\tEXPIRING\tEXPIRED\tREVOKED\tTOKENS AT THE END")
	for _, u := range demoUsers() {
		heard := d.heard[u.name]
		chain, _ := ledger.Chain(u.spec.Accounts[0].ID)
		renewals := max(0, len(chain.Refresh)-1)
		result := results[u.name]
		if heard[events.TokenRefreshed] != renewals {
			result = fmt.Sprintf("AMISS: %d refreshes, %d events", renewals, heard[events.TokenRefreshed])
		}
		amiss = amiss || strings.HasPrefix(result, "AMISS")
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", u.name, u.spec.BrokerName, renewals,
			heard[events.TokenRefreshed], heard[events.TokenStored], heard[events.TokenExpiring], heard[events.TokenExpired], heard[events.TokenRevoked], result)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("printing the summary: %w", err)
	}
	replaced := len(ledger.ReplacedPresented())
	fmt.Fprintf(d.out, "\nRefresh tokens presented after they were replaced: %d (must be 0)\nDead letters: %d (must be 1)\n", replaced, d.dead)
	if amiss || replaced != 0 || d.dead != 1 || d.heard["erin"][events.TokenRevoked] != 1 || d.heard["carol"][events.TokenExpired] != 1 {
		return errAmiss
	}
	return nil
}
