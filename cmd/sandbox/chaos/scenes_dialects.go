package chaos

import (
	"context"
	"fmt"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
)

// fronts are dialects in place of an institution.
var fronts = []string{"slowDown", "tooManyRequestUnder200", "maintenance", "firewall"}

// speakDialects puts most answers into random mixtures of dialects, while one institution
// after the other is hidden behind something else.
func (r *run) speakDialects(ctx context.Context) error {
	before := r.refreshCalls()
	names := meshsim.DialectNames(meshsim.OnTokens, meshsim.OnLifetimes, meshsim.OnRefresh)
	const mixtures = 16
	var faults []meshsim.Fault
	for range mixtures {
		mixture := make([]string, 1+r.rng.IntN(3))
		for i := range mixture {
			mixture[i] = names[r.rng.IntN(len(names))]
		}
		// Of sixteen with this chance each, one decides for nine answers of ten.
		faults = append(faults, meshsim.Fault{Operation: meshsim.OpRefresh, Probability: 0.14, Action: meshsim.Speak(mixture...)})
	}
	ids, err := r.stack.Mesh.Inject(faults...)
	if err != nil {
		return fmt.Errorf("injecting dialects: %w", err)
	}
	defer r.stack.Mesh.ClearFaults(ids...)
	for _, broker := range brokers {
		if err := r.stack.Mesh.Speak(broker, fronts[r.rng.IntN(len(fronts))]); err != nil {
			return fmt.Errorf("hiding an institution: %w", err)
		}
		err := r.pause(ctx, time.Second, 3*time.Second)
		if err := r.stack.Mesh.Speak(broker); err != nil {
			return fmt.Errorf("showing an institution: %w", err)
		}
		if err != nil {
			return err
		}
	}
	return r.untilCalls(ctx, before+dialectCalls) // with nothing in front
}

const dialectCalls = 80
