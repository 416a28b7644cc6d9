package refresher

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/latchkey/latchkey/store"
)

// walk is how far a step of reconciliation has come through its list. The next pass
// continues there, past what stays in the list since nothing can be done about it.
type walk struct {
	place store.Place
	// spread has concurrent workers take pages from here and there, skip pages after the place.
	spread  bool
	skip    int
	left    *int // how many more pages may be worked on; nil: maxPages
	inOrder bool // one grant after the other, as they are listed
}

// repair repairs one grant of a page. done: something was changed.
type repair func(ctx context.Context, g *store.Grant) (done bool, err error)

// maxPages bounds a step in one pass, atOnce the grants that are repaired concurrently.
const (
	maxPages = 20
	atOnce   = 8
)

// spreadPages is over how many pages the workers spread. Skipping a page costs the
// database a walk over as many index entries.
const spreadPages = 64

// pages lists what a method of the store finds for the time that is ahead of now.
func (r *Reconciler) pages(find func(ctx context.Context, at time.Time, after store.Place, limit int) (store.Page, error), ahead time.Duration) func(context.Context, store.Place) (store.Page, error) {
	return func(ctx context.Context, after store.Place) (store.Page, error) {
		return find(ctx, r.refresher.deps.Now().Add(ahead), after, r.config.Batch)
	}
}

// workThrough works through a list from where the walk stands, past what fails.
func (r *Reconciler) workThrough(ctx context.Context, w *walk, kind string, list func(ctx context.Context, after store.Place) (store.Page, error), do repair) error {
	failures := failures{kind: kind}
	repaired, ended, jumped := 0, false, false
	defer func() {
		// Where nothing at all can be done there is no hurry to try again.
		if (!ended || jumped) && repaired > 0 {
			r.more.Store(true)
		}
	}()
	left := w.left
	if left == nil {
		left = new(maxPages)
	}
	for *left > 0 && !ended && ctx.Err() == nil {
		page, err := list(ctx, w.place)
		if err != nil {
			return errors.Join(failures.err(), err)
		}
		if w.skip > 0 && !page.More { // so far back there is little; the rest is nearer
			w.skip = 0
			continue
		}
		*left--
		for _, id := range page.Unreadable {
			failures.add(fmt.Errorf("the document of grant %s does not decode", id))
		}
		done := r.page(ctx, w, page.Grants, do, &failures)
		repaired += done
		// Before a page in which nothing can be done lies as little to do as in it;
		// before any other lie the pages that were skipped.
		if w.skip == 0 || done == 0 {
			jumped = jumped || w.skip > 0
			w.place = page.Next
		}
		if ended = !page.More; ended {
			w.place = store.Place{}
		}
		if w.skip = 0; w.spread && page.More {
			w.skip = rand.IntN(spreadPages)
		}
	}
	return failures.err()
}

// page repairs the grants of a page, and returns for how many something was done.
func (r *Reconciler) page(ctx context.Context, w *walk, grants []*store.Grant, do repair, failures *failures) (done int) {
	var group errgroup.Group
	if group.SetLimit(1); !w.inOrder {
		group.SetLimit(atOnce)
		// Workers that got the same page begin in different places.
		rand.Shuffle(len(grants), func(i, j int) { grants[i], grants[j] = grants[j], grants[i] })
	}
	var mu sync.Mutex
	for _, g := range grants {
		group.Go(func() error {
			if ctx.Err() != nil {
				return nil // its turn comes with the next walk
			}
			changed, err := do(ctx, g)
			mu.Lock()
			defer mu.Unlock()
			failures.add(err)
			if changed {
				done++
			}
			return nil
		})
	}
	_ = group.Wait()
	return done
}

// ifUnchanged repairs a grant unless it has changed since it was listed.
func (r *Reconciler) ifUnchanged(kind string, do func(ctx context.Context, g *store.Grant) error) repair {
	return func(ctx context.Context, g *store.Grant) (bool, error) {
		same, err := r.unchanged(ctx, g)
		if err != nil || !same {
			return false, err
		}
		if err := do(ctx, g); err != nil {
			return false, err
		}
		r.refresher.metrics.repaired.WithLabelValues(kind).Inc()
		return true, nil
	}
}

// failures counts the errors of a step, and keeps the first few.
type failures struct {
	kind  string
	first []error
	count int
}

const maxFailures = 3

func (f *failures) add(err error) {
	if err == nil {
		return
	}
	if f.count++; len(f.first) < maxFailures {
		f.first = append(f.first, err)
	}
}

func (f *failures) err() error {
	if f.count == 0 {
		return nil
	}
	return fmt.Errorf("reconciling %s: %d failed, of which the first: %w", f.kind, f.count, errors.Join(f.first...))
}
