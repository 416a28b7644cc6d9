package chaos

import (
	"context"
	"fmt"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
)

// wave has a share of the calls to Mesh go wrong for a while.
func wave(share float64, actions ...meshsim.Action) func(*run, context.Context) error {
	return func(r *run, ctx context.Context) error {
		var faults []meshsim.Fault
		for _, a := range actions {
			faults = append(faults, meshsim.Fault{Operation: meshsim.OpRefresh, Probability: share / float64(len(actions)), Action: a})
		}
		return r.withFaults(ctx, faults, time.Second, 5*time.Second)
	}
}

func (r *run) institutionDown(ctx context.Context) error {
	fault := meshsim.Fault{Operation: meshsim.OpRefresh, BrokerType: brokers[r.rng.IntN(len(brokers))], Action: meshsim.HTTPStatus(502)}
	return r.withFaults(ctx, []meshsim.Fault{fault}, 2*time.Second, 8*time.Second)
}

func (r *run) withFaults(ctx context.Context, faults []meshsim.Fault, low, high time.Duration) error {
	ids, err := r.stack.Mesh.Inject(faults...)
	if err != nil {
		return fmt.Errorf("injecting faults: %w", err)
	}
	err = r.pause(ctx, low, high)
	r.stack.Mesh.ClearFaults(ids...)
	return err
}
