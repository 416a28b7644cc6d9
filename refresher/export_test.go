package refresher

import "time"

// Uncalled is for tests of what a refresh that made no call does to the limits.
const Uncalled = uncalled

// Pause is the time until the next pass.
func (r *Reconciler) Pause() time.Duration { return r.pause() }
