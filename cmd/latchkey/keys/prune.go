package keys

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

// margin is for how long after its last sealer was given out something may
// still be sealed under a data key, and clocks may differ.
const margin = time.Hour

// Prune deletes data keys that seal no more and are needed by nothing.
type Prune struct {
	Store *store.Store
	// Streams was read after now.
	Streams Streams
	Bounds  Bounds
	Now     time.Time
	DryRun  bool
}

// PruneReport says what Prune has done.
type PruneReport struct {
	// DryRun: it only says what it would do.
	DryRun  bool     `json:"dryRun"`
	Deleted []string `json:"deleted"`
	Kept    []Kept   `json:"kept"`
}

// Kept is a data key that has to stay.
type Kept struct {
	ID  string `json:"id"`
	Why string `json:"why"`
}

// Run prunes. After an error it can be run again.
func (p *Prune) Run(ctx context.Context) (PruneReport, error) {
	report := PruneReport{DryRun: p.DryRun, Deleted: []string{}, Kept: []Kept{}}
	var all []envelope.WrappedKey
	for key, err := range p.Store.Keys(ctx, time.Time{}) {
		if err != nil {
			return report, err
		}
		all = append(all, key)
	}
	for _, key := range all {
		why, err := p.needed(ctx, key)
		if err != nil {
			return report, err
		}
		if why != "" {
			report.Kept = append(report.Kept, Kept{key.ID, why})
			continue
		}
		if !p.DryRun {
			if err := p.Store.DeleteKey(ctx, key.ID); err != nil {
				return report, err
			}
		}
		report.Deleted = append(report.Deleted, key.ID)
	}
	return report, nil
}

// needed says why a data key has to stay; empty: nothing needs it.
func (p *Prune) needed(ctx context.Context, key envelope.WrappedKey) (string, error) {
	if over := p.Bounds.SealsUntil(key).Add(margin); !p.Now.After(over) {
		return "in use until " + over.Format(time.RFC3339), nil
	}
	uses, err := p.Store.KeyUses(ctx, key.ID)
	if err != nil {
		return "", err
	}
	if n := p.Streams.DeadLetters[key.ID]; n > 0 {
		uses["dead letters"] = n
	}
	if n := p.Streams.Recovery[key.ID]; n > 0 {
		uses["recovery entries"] = n
	}
	var why []string
	for _, where := range slices.Sorted(maps.Keys(uses)) {
		why = append(why, fmt.Sprintf("%s: %d", where, uses[where]))
	}
	if len(why) == 0 && !key.CreatedAt.After(p.Streams.LastRecovery) {
		return "a recovery entry among the dead letters may need it", nil
	}
	return strings.Join(why, ", "), nil
}
