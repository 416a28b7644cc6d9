package chaos

import (
	"context"
	"fmt"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events/pause"
)

// wave makes a share of the calls to Mesh go wrong for a while, and until some were made:
// with few grants seconds pass without any.
func wave(share float64, actions ...meshsim.Action) func(*run, context.Context) error {
	return func(r *run, ctx context.Context) error {
		return r.withFaults(ctx, faultsOf(share, actions...), time.Second, 5*time.Second, waveCalls)
	}
}

func faultsOf(share float64, actions ...meshsim.Action) (faults []meshsim.Fault) {
	for _, a := range actions {
		faults = append(faults, meshsim.Fault{Operation: meshsim.OpRefresh, Probability: share / float64(len(actions)), Action: a})
	}
	return faults
}

func (r *run) institutionDown(ctx context.Context) error {
	fault := meshsim.Fault{Operation: meshsim.OpRefresh, BrokerType: brokers[r.rng.IntN(len(brokers))], Action: meshsim.HTTPStatus(502)}
	return r.withFaults(ctx, []meshsim.Fault{fault}, 2*time.Second, 8*time.Second, waveCalls)
}

const waveCalls = 10

// withFaults makes calls go wrong for a time between two bounds, and until as many calls as
// wanted were made, but no longer than the lifetime of an access token.
func (r *run) withFaults(ctx context.Context, faults []meshsim.Fault, low, high time.Duration, wanted int) error {
	before := r.refreshCalls()
	ids, err := r.stack.Mesh.Inject(faults...)
	if err != nil {
		return fmt.Errorf("injecting faults: %w", err)
	}
	defer r.stack.Mesh.ClearFaults(ids...)
	if err := r.pause(ctx, low, high); err != nil {
		return err
	}
	return r.untilCalls(ctx, before+wanted)
}

// untilCalls waits until so many calls were made in all, but no longer than the lifetime of
// an access token.
func (r *run) untilCalls(ctx context.Context, wanted int) error {
	for end := time.Now().Add(r.Lifetime); r.refreshCalls() < wanted && time.Now().Before(end) && ctx.Err() == nil; {
		_ = pause.For(ctx, 100*time.Millisecond) // the loop sees that ctx has ended
	}
	return ctx.Err()
}

func (r *run) refreshCalls() int { return r.refreshCallsIf(func(meshsim.Request) bool { return true }) }

func (r *run) refreshCallsIf(match func(meshsim.Request) bool) (n int) {
	for _, q := range r.stack.Mesh.Ledger().Requests {
		if q.Operation == meshsim.OpRefresh && match(q) {
			n++
		}
	}
	return n
}
