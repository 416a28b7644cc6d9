package keys

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/latchkey/latchkey/events/options"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

// margin allows for workers that still seal under a data key after its end, and for
// clocks that differ.
const margin = time.Hour

// Prune deletes data keys that no longer seal and that nothing needs.
type Prune struct{ opts PruneOptions }

// PruneOptions for NewPrune. Streams and DryRun may be zero.
type PruneOptions struct {
	Store *store.Store
	// Streams was read after Now.
	Streams Streams
	Bounds  Bounds
	Now     time.Time
	DryRun  bool
}

// NewPrune returns a Prune that Run carries out.
func NewPrune(o PruneOptions) (*Prune, error) {
	if err := options.Require("a pruning of data keys", o, "Store", "Bounds", "Now"); err != nil {
		return nil, err
	}
	return &Prune{o}, nil
}

// PruneReport says what Prune did, or would do in a dry run.
type PruneReport struct {
	DryRun  bool     `json:"dryRun"`
	Deleted []string `json:"deleted"`
	Kept    []Kept   `json:"kept"`
}

// Kept is a data key that is still needed.
type Kept struct {
	ID  string `json:"id"`
	Why string `json:"why"`
}

// Run prunes. After an error it can be run again.
func (p *Prune) Run(ctx context.Context) (PruneReport, error) {
	report := PruneReport{DryRun: p.opts.DryRun, Deleted: []string{}, Kept: []Kept{}}
	all, err := allKeys(ctx, p.opts.Store)
	if err != nil {
		return report, err
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
		if !p.opts.DryRun {
			if err := p.opts.Store.DeleteKey(ctx, key.ID); err != nil {
				return report, err
			}
		}
		report.Deleted = append(report.Deleted, key.ID)
	}
	return report, nil
}

// needed says why a data key is still needed; empty: it is not.
func (p *Prune) needed(ctx context.Context, key envelope.WrappedKey) (string, error) {
	if end := p.opts.Bounds.SealsUntil(key).Add(margin); !p.opts.Now.After(end) {
		return "in use until " + end.Format(time.RFC3339), nil
	}
	uses, err := p.opts.Store.KeyUses(ctx, key.ID)
	if err != nil {
		return "", err
	}
	if n := p.opts.Streams.DeadLetters[key.ID]; n > 0 {
		uses["dead letters"] = n
	}
	if n := p.opts.Streams.Recovery[key.ID]; n > 0 {
		uses["recovery entries"] = n
	}
	var why []string
	for _, where := range slices.Sorted(maps.Keys(uses)) {
		why = append(why, fmt.Sprintf("%s: %d", where, uses[where]))
	}
	if len(why) == 0 && !key.CreatedAt.After(p.opts.Streams.LastRecovery) {
		return "a recovery entry among the dead letters may need it", nil
	}
	return strings.Join(why, ", "), nil
}
