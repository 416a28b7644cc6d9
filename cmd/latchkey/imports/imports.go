// Package imports publishes tokens that a company already holds, line by line,
// as integration.connected events.
package imports

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/time/rate"

	"github.com/latchkey/latchkey/events/client"
)

// Options for Run.
type Options struct {
	In io.Reader
	// StateFile keeps how far the import has come; empty: nothing does.
	StateFile string
	// RejectsFile receives the reasons of rejections; empty: nothing does.
	RejectsFile string
	// MaxBytes bounds a line.
	MaxBytes int
	// Publish publishes a body and returns when it is stored. Nil: lines are only
	// validated.
	Publish func(ctx context.Context, body []byte) error
	// InFlight bounds concurrent publishes.
	InFlight int
	// Rate bounds publishes a second; 0: no bound.
	Rate float64
	Now  func() time.Time
	// Progress, if set, is called after every line.
	Progress func(State)
	// OnReject, if set, is called for every rejected line.
	OnReject func(Reject)
}

// ErrChanged: the input is not the one of the state file.
var ErrChanged = errors.New("the input differs from the one recorded in the state file; use another state file to start over")

// saveEvery is the time between two writes of the state file.
const saveEvery = time.Second

// Run imports what is left of the input. If ctx or an error ends it early, another Run
// continues from the state file.
func Run(ctx context.Context, o Options) (State, error) {
	state, err := loadState(o.StateFile)
	if err != nil {
		return state, err
	}
	if state.StartedAt.IsZero() {
		state.StartedAt = o.Now().UTC()
	}
	r := &run{Options: o, state: state, slots: make(chan struct{}, o.InFlight), lines: newLines(o.In, o.MaxBytes), sieve: sieve{start: state.StartedAt, seen: map[[16]byte]sighting{}}}
	if err := r.skip(ctx); err != nil {
		return state, err
	}
	if r.rejects, err = openRejects(o.RejectsFile, state.RejectsBytes); err != nil {
		return state, err
	}
	defer r.rejects.close()
	err = r.all(ctx)
	return r.state, errors.Join(err, r.save())
}

type run struct {
	Options
	lines   *lines
	sieve   sieve
	rejects *rejects
	state   State
	slots   chan struct{} // one is taken by each publish under way
}

// entry is a line that is being imported.
type entry struct {
	verdict
	number, offset int64
	sum            string
	published      chan error
}

// skip reads the lines that are imported already.
func (r *run) skip(ctx context.Context) error {
	for r.lines.offset < r.state.Offset && ctx.Err() == nil {
		line, err := r.lines.next()
		switch {
		case errors.Is(err, io.EOF):
			return ErrChanged
		case err != nil && !errors.Is(err, errTooLong):
			return fmt.Errorf("reading the input: %w", err)
		case err == nil:
			r.sieve.judge(line, r.lines.number)
		}
	}
	if r.state.Offset > 0 && ctx.Err() == nil && (r.lines.offset != r.state.Offset || r.sum() != r.state.SHA256) {
		return ErrChanged
	}
	return ctx.Err()
}

func (r *run) sum() string { return hex.EncodeToString(r.lines.hash.Sum(nil)) }

// all imports the lines that are left. It finishes them in their order, so that the
// state is one place in the input.
func (r *run) all(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		for range r.InFlight { // no publish outlasts the import
			r.slots <- struct{}{}
		}
	}()
	pending := make(chan *entry, r.InFlight)
	ended := make(chan error, 1)
	go func() {
		ended <- r.read(ctx, pending)
		close(pending)
	}()
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case e, more := <-pending:
			if !more {
				return <-ended
			}
			err := <-e.published
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err == nil || errors.Is(err, client.ErrTooLarge) {
				err = r.finish(e, err)
			} else {
				err = fmt.Errorf("line %d: %w", e.number, err)
			}
			if err != nil {
				return err
			}
		case <-tick.C:
			if err := r.save(); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// read judges lines, starts to publish them, and sends them to pending in their order.
func (r *run) read(ctx context.Context, pending chan<- *entry) error {
	limit := rate.NewLimiter(rate.Inf, 1)
	if r.Rate > 0 {
		limit = rate.NewLimiter(rate.Limit(r.Rate), 1)
	}
	for {
		line, err := r.lines.next()
		e := &entry{number: r.lines.number, offset: r.lines.offset, sum: r.sum(), published: make(chan error, 1)}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errTooLong):
			e.reason = err.Error()
		case err != nil:
			return fmt.Errorf("reading the input: %w", err)
		default:
			e.verdict = r.sieve.judge(line, e.number)
		}
		if e.body != nil && r.Publish != nil {
			if err := limit.Wait(ctx); err != nil {
				return err
			}
			select {
			case r.slots <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			go func() {
				e.published <- r.Publish(ctx, e.body)
				<-r.slots
			}()
		} else {
			e.published <- nil
		}
		select {
		case pending <- e:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// finish counts a line. refused is why NATS refused it, if it did.
func (r *run) finish(e *entry, refused error) error {
	if refused != nil {
		e.reason = client.ErrTooLarge.Error()
	}
	r.state.Lines++
	switch {
	case e.reason != "":
		r.state.Rejected++
		reject := Reject{e.number, e.reason}
		if err := r.rejects.add(reject); err != nil {
			return err
		}
		if r.OnReject != nil {
			r.OnReject(reject)
		}
	case e.repeated:
		r.state.Repeated++
	case e.body != nil:
		r.state.Accepted++
	}
	r.state.Offset, r.state.SHA256 = e.offset, e.sum
	if r.Progress != nil {
		r.Progress(r.state)
	}
	return nil
}

// save writes the rejects and then the state, which counts them.
func (r *run) save() error {
	if err := r.rejects.sync(); err != nil || r.StateFile == "" {
		return err
	}
	r.state.RejectsBytes = r.rejects.size
	return r.state.save(r.StateFile)
}
