package chaos

import (
	"cmp"
	"slices"
	"time"
)

// episode is one scene of a run, or another part of it. What happens from its beginning to
// that of the next counts as its effect.
type episode struct {
	scene    string
	from, to time.Time
	silent   bool // workers may have been unable to publish events
}

type timeline struct{ episodes []episode }

func (t *timeline) begin(scene string, silent bool) {
	now := time.Now()
	if n := len(t.episodes); n > 0 && t.episodes[n-1].to.IsZero() {
		t.episodes[n-1].to = now
	}
	t.episodes = append(t.episodes, episode{scene: scene, from: now, silent: silent})
}

func (t *timeline) end() { t.episodes[len(t.episodes)-1].to = time.Now() }

func (t *timeline) at(moment time.Time) int {
	i, found := slices.BinarySearchFunc(t.episodes, moment, func(e episode, m time.Time) int { return e.from.Compare(m) })
	if !found {
		i--
	}
	return max(i, 0)
}

// recovery is how long after a silent episode workers may be busy with its effects: a lease
// has to expire, and the reconciler has to run.
const recovery = lease + clockSkew + 3*reconcileInterval

// ableBy returns the moment by which workers were able to publish events for the needed time,
// counted from a moment; false if there is none before the end.
func (t *timeline) ableBy(from time.Time, needed time.Duration, end time.Time) (time.Time, bool) {
	for _, e := range t.episodes {
		if !e.silent {
			continue
		}
		until := cmp.Or(e.to, end).Add(recovery)
		if !from.Before(until) {
			continue
		}
		if free := e.from.Sub(from); free >= needed {
			break
		} else if free > 0 {
			needed -= free
		}
		from = until
	}
	by := from.Add(needed)
	return by, by.Before(end)
}
