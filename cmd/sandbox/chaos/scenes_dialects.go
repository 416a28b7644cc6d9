package chaos

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
)

// outOfTheMix are dialects that can't be judged here. An answer that misstates how long
// its tokens live has them handed out beyond their end, and a version that holds no
// new access token is not told.
var outOfTheMix = []string{"mistyped", "refreshTokenAlone"}

// manners are what institutions do for some grants all the time.
var manners = []string{"keptRefreshTokenLeftOut", "deprecatedFields", "refreshTokenAlone", "oneTokenForAll"}

// fronts are what stands in front of an institution for a while.
var fronts = []string{"slowDown", "tooManyRequestUnder200", "maintenance", "firewall"}

func borne(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(outOfTheMix, name) })
}

// mannerOf gives every other grant a dialect of behaviour.
func mannerOf(grant int) []string {
	list := borne(manners)
	if grant%2 == 0 || len(list) == 0 {
		return nil
	}
	return []string{list[grant/2%len(list)]}
}

// speakDialects has most answers come in dialects, mixed at random, while one
// institution after the other is hidden behind something else.
func (r *run) speakDialects(ctx context.Context) error {
	before := r.refreshCalls()
	names := borne(meshsim.DialectNames(meshsim.OnTokens, meshsim.OnRefresh))
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
		hidden := borne(fronts)
		if err := r.stack.Mesh.Speak(broker, hidden[r.rng.IntN(len(hidden))]); err != nil {
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

// dialectCalls is how many answers are wanted in dialects.
const dialectCalls = 80
