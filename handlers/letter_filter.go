package handlers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
	"github.com/latchkey/latchkey/store/streams"
)

// LetterMessages are the names that messages have in dead letters.
var LetterMessages = []string{events.IntegrationConnected, events.IntegrationDisconnected, events.RefreshDueName, RecoveryName, AnswerName}

// LetterFilter selects dead letters. Zero fields select all.
type LetterFilter struct {
	// User selects what concerns a user: messages that name the user, alone or among
	// others, and whatever is about one of the user's grants. A dead letter whose user was
	// not found when it was parked is nobody's.
	User string
	// Unnamed selects those in which no user and no grant was found.
	Unnamed bool
	// Reason is a part of the reason; case does not matter. ReasonIs is the whole.
	Reason, ReasonIs string
	// Message is the name of the message: one of LetterMessages.
	Message string
	// Since and Before bound when they were parked.
	Since, Before time.Time
	// Through is the place in the stream of the last to look at; 0: no bound.
	Through uint64
}

// selects reports whether a dead letter on one of the filter's subjects is meant.
func (f LetterFilter) selects(l ParkedLetter) bool {
	return (f.User == "" || l.Tag != events.SeveralTag || slices.Contains(l.Users, store.UserTag(f.User))) &&
		strings.Contains(strings.ToLower(l.Reason), strings.ToLower(f.Reason)) && (f.ReasonIs == "" || l.Reason == f.ReasonIs) &&
		(f.Message == "" || l.Message == f.Message) &&
		!l.ParkedAt.Before(f.Since) && (f.Before.IsZero() || l.ParkedAt.Before(f.Before))
}

// errNoGrants: nobody knows the grants of a user here.
var errNoGrants = errors.New("without a user's grants it is not known which dead letters concern the user")

// subjects returns where the dead letters are that a filter may select.
func (p *DeadLetters) subjects(ctx context.Context, f LetterFilter) ([]string, error) {
	switch {
	case f.Unnamed:
		return []string{p.opts.Subjects.DeadLettersOf(events.UnknownTag)}, nil
	case f.User == "":
		return []string{p.opts.Subjects.DeadLetterAll()}, nil
	}
	if p.opts.Grants == nil {
		return nil, errNoGrants
	}
	grants, err := p.opts.Grants(ctx, f.User)
	if err != nil {
		return nil, fmt.Errorf("looking for the dead letters of a user: %w", err)
	}
	all := []string{p.opts.Subjects.DeadLettersOf(store.UserTag(f.User)), p.opts.Subjects.DeadLettersOf(events.SeveralTag)}
	for _, g := range grants {
		all = append(all, p.opts.Subjects.DeadLettersOf(g.ID))
	}
	return all, nil
}

// All returns the dead letters, oldest first. Foreign messages in the stream get an id
// from their sequence, so that they can be dropped.
func (p *DeadLetters) All(ctx context.Context) iter.Seq2[ParkedLetter, error] { return p.From(ctx, 1) }

// From is All from a sequence in the stream on.
func (p *DeadLetters) From(ctx context.Context, sequence uint64) iter.Seq2[ParkedLetter, error] {
	return p.Matching(ctx, LetterFilter{}, sequence)
}

// BrokenOffError says that dead letters were looked through only up to a place in the stream.
type BrokenOffError struct {
	// Next is the sequence to go on from.
	Next uint64
	err  error
}

func (e *BrokenOffError) Error() string { return e.err.Error() }

func (e *BrokenOffError) Unwrap() error { return e.err }

// Matching returns the dead letters that a filter selects, oldest first, from a sequence
// in the stream on. The caller may delete them meanwhile. It ends after an error, which is a
// BrokenOffError once it reads the stream.
func (p *DeadLetters) Matching(ctx context.Context, f LetterFilter, sequence uint64) iter.Seq2[ParkedLetter, error] {
	return func(yield func(ParkedLetter, error) bool) {
		stream, err := p.stream(ctx)
		var subjects []string
		if err == nil {
			subjects, err = p.subjects(ctx, f)
		}
		if err != nil {
			yield(ParkedLetter{}, err)
			return
		}
		next := sequence
		for msg, err := range streams.Merged(ctx, stream, subjects, sequence) {
			if err != nil {
				yield(ParkedLetter{}, &BrokenOffError{next, err})
				return
			}
			next = msg.Sequence + 1
			if f.Through > 0 && msg.Sequence > f.Through {
				return
			}
			if p.isPart(msg) {
				continue
			}
			if letter := p.parked(msg); f.selects(letter) && !yield(letter, nil) {
				return
			}
		}
	}
}

// LetterTally says how many dead letters a filter selects.
type LetterTally struct {
	Letters int
	// Reasons lists them by reason and message, most first.
	Reasons []ReasonTally
	// Through is the place of the last. With it in the filter, what is done next is done
	// to these, and to none that was parked since.
	Through uint64
}

// ReasonTally counts the dead letters with a reason. Oldest and Newest say when they were
// parked.
type ReasonTally struct {
	Reason, Message string
	Letters         int
	Oldest, Newest  time.Time
}

// Tally counts the dead letters that a filter selects.
func (p *DeadLetters) Tally(ctx context.Context, f LetterFilter) (LetterTally, error) {
	var t LetterTally
	for l, err := range p.Matching(ctx, f, 1) {
		if err != nil {
			return LetterTally{}, err
		}
		t.add(l)
	}
	slices.SortFunc(t.Reasons, func(a, b ReasonTally) int {
		return cmp.Or(cmp.Compare(b.Letters, a.Letters), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Message, b.Message))
	})
	return t, nil
}

func (t *LetterTally) add(l ParkedLetter) {
	t.Letters++
	t.Through = max(t.Through, l.Sequence)
	i := slices.IndexFunc(t.Reasons, func(r ReasonTally) bool { return r.Reason == l.Reason && r.Message == l.Message })
	if i < 0 {
		i = len(t.Reasons)
		t.Reasons = append(t.Reasons, ReasonTally{Reason: l.Reason, Message: l.Message, Oldest: l.ParkedAt, Newest: l.ParkedAt})
	}
	r := &t.Reasons[i]
	r.Letters++
	if l.ParkedAt.Before(r.Oldest) {
		r.Oldest = l.ParkedAt
	}
	if l.ParkedAt.After(r.Newest) {
		r.Newest = l.ParkedAt
	}
}

// Each calls do, such as Replay or Drop, for the dead letters that a filter selects,
// oldest first, as EachOf does. Those that are parked after it begins stay, also those that
// come of a replay.
func (p *DeadLetters) Each(ctx context.Context, f LetterFilter, do func(context.Context, ParkedLetter) error) (done int, err error) {
	if f.Through == 0 {
		stream, err := p.stream(ctx)
		if err != nil {
			return 0, err
		}
		if f.Through = stream.CachedInfo().State.LastSeq; f.Through == 0 {
			return 0, nil
		}
	}
	return EachOf(ctx, p.Matching(ctx, f, 1), do)
}

// EachOf calls do for dead letters, and returns for how many it succeeded. One that fails
// keeps it from no other, and of many errors it returns the first few; after an outage it
// does not go on.
func EachOf(ctx context.Context, letters iter.Seq2[ParkedLetter, error], do func(context.Context, ParkedLetter) error) (done int, err error) {
	var failed []error
	for letter, err := range letters {
		if err == nil {
			if err = do(ctx, letter); err == nil {
				done++
				continue
			}
		}
		failed = append(failed, err)
		if ctx.Err() != nil || refresher.Outage(err) && !envelope.Refused(err) {
			break
		}
	}
	return done, streams.FirstErrors(failed)
}
