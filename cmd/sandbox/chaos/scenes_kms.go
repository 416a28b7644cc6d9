package chaos

import (
	"context"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
)

// faulty makes all calls to a service of AWS go wrong for a while, in one of several ways.
// Data keys and credentials are so short-lived that it is called all the time.
func faulty(service func(*run) *kmssim.Faults, ways ...func(*kmssim.Faults)) func(*run, context.Context) error {
	return func(r *run, ctx context.Context) error {
		faults := service(r)
		ways[r.rng.IntN(len(ways))](faults)
		defer faults.Clear()
		return r.pause(ctx, 4*time.Second, 9*time.Second)
	}
}

func ofKMS(r *run) *kmssim.Faults { return r.stack.KMS.Faults() }
func ofSTS(r *run) *kmssim.Faults { return r.stack.STS.Faults() }

func always(fault kmssim.Fault) func(*kmssim.Faults) {
	return func(f *kmssim.Faults) { f.Always(fault) }
}

// hanging delays every call for longer than any client waits.
func hanging(f *kmssim.Faults) { f.Delay(time.Hour) }
