package keys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/latchkey/latchkey/events/options"
	"github.com/latchkey/latchkey/events/pause"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
	"github.com/latchkey/latchkey/store/envelope"
)

// Reseal seals token sets under new data keys while workers run. First it makes all
// workers use new data keys; then it walks over the token sets under the old ones, and
// comes back later to grants that a worker holds.
type Reseal struct{ opts ResealOptions }

// ResealOptions for NewReseal. Restart, Audit and the times may be zero.
type ResealOptions struct {
	Store    *store.Store
	Envelope *envelope.Envelope
	Now      func() time.Time
	// ClockSkew is how long after its end a lease may still be live.
	ClockSkew time.Duration
	// RolloutDelay is how long it takes until all workers use new data keys.
	RolloutDelay time.Duration
	// Patience is how long Run comes back to busy grants, Pause the time between two
	// attempts.
	Patience, Pause time.Duration
	// Restart starts over even if an earlier run was not finished.
	Restart  bool
	Limit    *rate.Limiter
	Progress Progress
	// Audit records every token set that is resealed; nil: nothing does.
	Audit *audit.Log
}

// NewReseal returns a Reseal that Run carries out.
func NewReseal(o ResealOptions) (*Reseal, error) {
	if err := options.Require("a resealing of token sets", o, "Store", "Envelope", "Now", "Limit", "Progress"); err != nil {
		return nil, err
	}
	return &Reseal{o}, nil
}

// ResealReport says what Reseal did.
type ResealReport struct {
	// Before is the time from which data keys count as new.
	Before time.Time `json:"before"`
	// Continued: an earlier run, which was not finished, set Before.
	Continued bool `json:"continued"`
	Resealed  int  `json:"resealed"`
	// Busy grants were held by a worker at every attempt.
	Busy []string `json:"busy"`
	// Unreadable grants can't be opened, and stay as they are.
	Unreadable []Fault `json:"unreadable"`
}

// batch is how many grants are read at once.
const batch = 200

// Run reseals. If it is interrupted, or grants stay busy, another run continues.
func (r *Reseal) Run(ctx context.Context) (ResealReport, error) {
	report := ResealReport{Busy: []string{}, Unreadable: []Fault{}}
	if err := r.retire(ctx, &report); err != nil {
		return report, err
	}
	old, err := r.old(ctx, report.Before)
	if err != nil {
		return report, err
	}
	prints, err := store.NewFingerprints(store.FingerprintOptions{Store: r.opts.Store, Envelope: r.opts.Envelope})
	if err != nil {
		return report, err
	}
	unreadable := map[string]Fault{}
	// Until then workers may still seal under old keys.
	start, settled := r.opts.Now(), report.Before.Add(r.opts.RolloutDelay)
	if settled.After(start.Add(r.opts.RolloutDelay)) { // set by a clock that is ahead
		settled = start.Add(r.opts.RolloutDelay)
	}
	for {
		began := r.opts.Now()
		if err := prints.Reseal(ctx, func(key string) bool { return slices.Contains(old, key) }); err != nil {
			return report, err
		}
		busy, err := r.pass(ctx, old, unreadable, &report.Resealed)
		report.Busy = append([]string{}, busy...)
		report.Unreadable = slices.SortedFunc(maps.Values(unreadable), func(a, b Fault) int { return cmp.Compare(a.ID, b.ID) })
		if err != nil {
			return report, err
		}
		last := !began.Before(settled)
		if last && len(busy) == 0 {
			return report, r.opts.Store.Retire(ctx, store.Retirement{Before: report.Before, Done: true})
		}
		if last && !r.opts.Now().Before(start.Add(r.opts.Patience)) {
			return report, nil
		}
		if err := pause.For(ctx, r.opts.Pause); err != nil {
			return report, err
		}
	}
}

// retire makes workers use new data keys, unless it continues a run that was not
// finished.
func (r *Reseal) retire(ctx context.Context, report *ResealReport) error {
	last, err := r.opts.Store.Retirement(ctx)
	if err != nil {
		return err
	}
	report.Before, report.Continued = last.Before, true
	if last.Before.IsZero() || last.Done || r.opts.Restart {
		report.Before, report.Continued = store.Milli(r.opts.Now()), false
		if !report.Before.After(last.Before) { // set by a clock that is ahead
			report.Before = last.Before.Add(time.Millisecond)
		}
		if err := r.opts.Store.Retire(ctx, store.Retirement{Before: report.Before}); err != nil {
			return err
		}
	}
	r.opts.Envelope.RetireBefore(report.Before)
	return nil
}

// old returns the ids of the old data keys, and of data keys that token sets name but
// that are not stored.
func (r *Reseal) old(ctx context.Context, before time.Time) ([]string, error) {
	census, err := TakeCensus(ctx, r.opts.Store)
	if err != nil {
		return nil, err
	}
	var ids []string
	total := 0
	for _, key := range census.Keys {
		if key.CreatedAt.Before(before) {
			ids = append(ids, key.ID)
			total += key.Sets
		}
	}
	r.opts.Progress.Total(total)
	return append(ids, slices.Sorted(maps.Keys(census.Missing))...), nil
}

// pass walks once over all that is sealed under the old keys.
func (r *Reseal) pass(ctx context.Context, old []string, unreadable map[string]Fault, resealed *int) (busy []string, err error) {
	for _, key := range old {
		for after := ""; ; {
			page, err := r.opts.Store.SealedUnder(ctx, key, after, batch)
			if err != nil {
				return busy, err
			}
			after = page.Next.ID
			for _, id := range page.Unreadable {
				unreadable[id] = Fault{id, "the grant's document does not decode"}
			}
			for _, g := range page.Grants {
				if _, known := unreadable[g.ID]; known {
					continue
				}
				if err := r.opts.Limit.Wait(ctx); err != nil {
					return busy, err
				}
				switch err := r.reseal(ctx, g); {
				case err == nil:
					*resealed++
					r.opts.Progress.Step()
				case errors.Is(err, store.ErrConflict):
					busy = append(busy, g.ID)
				case errors.Is(err, envelope.ErrSealed), errors.Is(err, envelope.ErrWrappedKey), errors.Is(err, envelope.ErrUnknownKey):
					unreadable[g.ID] = Fault{g.ID, err.Error()}
				default:
					return busy, err
				}
			}
			if !page.More {
				break
			}
		}
	}
	return busy, nil
}

// reseal reseals one token set. The error wraps store.ErrConflict while a worker holds
// the grant: a change would make that worker's refresh fail to store its outcome.
func (r *Reseal) reseal(ctx context.Context, g *store.Grant) error {
	// A lease counts as live for longer than its holder believes.
	now := r.opts.Now().Add(-r.opts.ClockSkew)
	if g.Busy(now) {
		return fmt.Errorf("grant %s is busy: %w", g.ID, store.ErrConflict)
	}
	sealer, err := r.opts.Envelope.Sealer(ctx, g.UserID)
	if err != nil {
		return err
	}
	plain, err := r.opts.Envelope.Open(ctx, g.Sealed, g.Binding())
	if err != nil {
		return fmt.Errorf("opening the tokens of grant %s: %w", g.ID, err)
	}
	defer clear(plain)
	if err := r.opts.Store.Reseal(ctx, g, sealer.Seal(plain, g.Binding()), now); err != nil {
		return err
	}
	r.opts.Audit.Add(g.AuditRecord(audit.Sealed, audit.OutcomeReseal, nil))
	return nil
}
