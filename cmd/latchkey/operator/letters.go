package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/handlers"
)

const (
	// lettersPerPage is how many dead letters the page shows at once.
	lettersPerPage = 50
	// lettersWithin bounds how long they are looked through, maxReasons how many reasons are
	// listed.
	lettersWithin = 5 * time.Second
	maxReasons    = 100
	// actWithin bounds an action on a dead letter, actAllWithin one on many.
	actWithin    = 30 * time.Second
	actAllWithin = 5 * time.Minute
)

// letterView adds to the view of a dead letter what only the page shows.
type letterView struct {
	view.DeadLetter
	// Grant is its grantOf.
	Grant string `json:"grant,omitempty"`
}

func letterFilter(user, message, reason, reasonIs string) (handlers.LetterFilter, error) {
	f := handlers.LetterFilter{User: user, Message: message, Reason: reason, ReasonIs: reasonIs}
	if user != "" {
		if err := events.CheckUserID(user); err != nil {
			return f, refuse(http.StatusBadRequest, err.Error())
		}
	}
	return f, nil
}

func letterFilterOf(q url.Values) (handlers.LetterFilter, error) {
	return letterFilter(q.Get("user"), q.Get("message"), q.Get("reason"), q.Get("is"))
}

func (p *Page) listLetters(r *http.Request) (any, error) {
	query := r.URL.Query()
	from := uint64(1)
	if text := query.Get("from"); text != "" {
		var err error
		if from, err = strconv.ParseUint(text, 10, 64); err != nil || from == 0 {
			return nil, refuse(http.StatusBadRequest, "from must be a place in the stream")
		}
	}
	filter, err := letterFilterOf(query)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), lettersWithin)
	defer cancel()
	ctx, stop := p.refusals.watch(ctx, p.Subjects.DeadLetterStream())
	defer stop()
	views, next := []letterView{}, uint64(0)
	for l, err := range p.Letters.Matching(ctx, filter, from) {
		if err != nil {
			if next = placeAfter(ctx, err, from); next == 0 {
				return nil, whyNot(ctx, err)
			}
			break // the rest is on the next page
		}
		if len(views) == lettersPerPage {
			next = l.Sequence
			break
		}
		views = append(views, letterView{view.OfDeadLetter(l), grantOf(l)})
	}
	return map[string]any{"letters": views, "next": next}, nil
}

// placeAfter returns where to go on if dead letters were looked through from a place on until the time
// for it was over; 0: something else ended it, or nothing was looked at.
func placeAfter(ctx context.Context, err error, from uint64) uint64 {
	var broken *handlers.BrokenOffError
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) && errors.As(err, &broken) && broken.Next > from {
		return broken.Next
	}
	return 0
}

// aboutGrants are the messages whose dead letters are tagged with a grant.
var aboutGrants = []string{events.RefreshDueName, handlers.RecoveryName, handlers.AnswerName}

// grantOf returns the grant that a dead letter is about; empty: it is about none, or none that is known.
func grantOf(l handlers.ParkedLetter) string {
	if grantID.MatchString(l.Tag) && slices.Contains(aboutGrants, l.Message) {
		return l.Tag
	}
	return ""
}

// letterTally counts dead letters by reason.
type letterTally struct {
	Letters int `json:"letters"`
	// Again counts those that failed again after a replay since a time.
	Again   int           `json:"again"`
	Reasons []reasonTally `json:"reasons"`
	// Messages are the names of messages that there may be.
	Messages []string `json:"messages"`
	// Through is the place of the last one that was counted.
	Through uint64 `json:"through"`
	// Partial: there are more than could be looked through.
	Partial bool `json:"partial"`
}

// reasonTally counts the dead letters with a reason and a message, and those of them that
// failed Again after a replay.
type reasonTally struct {
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	Letters int       `json:"letters"`
	Again   int       `json:"again"`
	Oldest  time.Time `json:"oldest"`
	Newest  time.Time `json:"newest"`
}

// tallyLetters counts dead letters by reason for as long as it may take.
func (p *Page) tallyLetters(r *http.Request) (any, error) {
	query := r.URL.Query()
	filter, err := letterFilterOf(query)
	if err != nil {
		return nil, err
	}
	since := p.Now()
	if text := query.Get("since"); text != "" {
		if since, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return nil, refuse(http.StatusBadRequest, "since must be a time")
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), lettersWithin)
	defer cancel()
	ctx, stop := p.refusals.watch(ctx, p.Subjects.DeadLetterStream())
	defer stop()
	t := letterTally{Messages: handlers.LetterMessages}
	type kind struct{ reason, message string }
	found := map[kind]*reasonTally{}
	for l, err := range p.Letters.Matching(ctx, filter, 1) {
		if err != nil {
			if t.Partial = placeAfter(ctx, err, 1) > 0; !t.Partial {
				return nil, whyNot(ctx, err)
			}
			break
		}
		t.Letters++
		t.Through = l.Sequence
		k := found[kind{l.Reason, l.Message}]
		if k == nil {
			k = &reasonTally{Reason: l.Reason, Message: l.Message, Oldest: l.ParkedAt}
			found[kind{l.Reason, l.Message}] = k
		}
		k.Letters++
		if k.Oldest.After(l.ParkedAt) {
			k.Oldest = l.ParkedAt
		}
		if k.Newest.Before(l.ParkedAt) {
			k.Newest = l.ParkedAt
		}
		if l.Replayed {
			k.Again++
		}
		if l.Replayed && !l.ParkedAt.Before(since) {
			t.Again++
		}
	}
	all := slices.SortedFunc(maps.Values(found), func(a, b *reasonTally) int {
		return cmp.Or(cmp.Compare(b.Letters, a.Letters), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Message, b.Message))
	})
	t.Reasons = []reasonTally{}
	for _, k := range all[:min(maxReasons, len(all))] {
		t.Reasons = append(t.Reasons, *k)
	}
	return t, nil
}

// letterAction is what can be done with a dead letter.
type letterAction struct {
	name, done string
	do         func(context.Context, handlers.ParkedLetter) error
	// replays: what fails again becomes a new dead letter.
	replays bool
}

func (p *Page) replaying() letterAction {
	return letterAction{"deadletter.replay", "replayed", p.Letters.Replay, true}
}

func (p *Page) dropping() letterAction {
	return letterAction{"deadletter.drop", "dropped", p.Letters.Drop, false}
}

// letterAnswer is the answer to an action on dead letters.
type letterAnswer struct {
	Text string `json:"text"`
	// Problem: some were left.
	Problem bool `json:"problem,omitempty"`
	// At is the time before a replay.
	At *time.Time `json:"at,omitempty"`
}

// act does something to one dead letter, and records it. user is whom it is known to concern; empty:
// that is not known.
func (p *Page) act(ctx context.Context, r *http.Request, a letterAction, l handlers.ParkedLetter, user string) error {
	record := func(how string) { p.audit(r, a.name, user, grantOf(l), l.ID+" ("+l.Message+") "+how) }
	record("begun")
	ctx, cancel := context.WithTimeout(ctx, actWithin)
	defer cancel()
	ctx, stop := p.refusals.watch(ctx, l.Subject, p.Subjects.DeadLetterStream())
	defer stop()
	if err := a.do(ctx, l); err != nil {
		record("failed")
		return whyNot(ctx, err)
	}
	record(a.done)
	return nil
}

// onLetter returns an action on the dead letter that a request names by its place in the
// stream and its id: another one may be at that place by now.
func (p *Page) onLetter(a letterAction) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		var named struct {
			ID string `json:"id"`
		}
		if err := body(r, &named); err != nil {
			return nil, err
		}
		sequence, err := strconv.ParseUint(r.PathValue("sequence"), 10, 64)
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "the place in the stream must be a number")
		}
		// An action is finished even if the operator closes the page.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), actWithin)
		defer cancel()
		letter, err := p.Letters.At(ctx, sequence, named.ID)
		if errors.Is(err, handlers.ErrNoLetter) {
			return nil, refuse(http.StatusNotFound, "this dead letter is not there any more")
		}
		if err != nil {
			return nil, err
		}
		answer := letterAnswer{Text: "The dead letter was " + a.done + "."}
		if a.replays {
			now := p.Now()
			answer.At = &now
		}
		if err := p.act(ctx, r, a, letter, ""); err != nil {
			if why := refusedFor(err); why != "" {
				return nil, refuse(http.StatusConflict, "not "+a.done+": "+why)
			}
			return nil, err
		}
		p.letters.forget()
		return answer, nil
	}
}

// onLetters returns an action on all dead letters that a request selects.
func (p *Page) onLetters(a letterAction) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		var named struct {
			User    string `json:"user"`
			Message string `json:"message"`
			Reason  string `json:"reason"`
			Is      string `json:"is"`
			Through uint64 `json:"through"`
		}
		if err := body(r, &named); err != nil {
			return nil, err
		}
		filter, err := letterFilter(named.User, named.Message, named.Reason, named.Is)
		if err != nil {
			return nil, err
		}
		if filter.Through = named.Through; filter.Through == 0 {
			return nil, refuse(http.StatusBadRequest, "through must be the place of the last one that was counted")
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), actAllWithin)
		defer cancel()
		began := p.Now()
		left, whys := 0, map[string]bool{}
		done, err := p.Letters.Each(ctx, filter, func(ctx context.Context, l handlers.ParkedLetter) error {
			err := p.act(ctx, r, a, l, filter.User)
			if err != nil {
				left++
				whys[cmp.Or(refusedFor(err), "see the worker's log")] = true
			}
			if denied := (*refusal)(nil); errors.As(err, &denied) {
				cancel() // nor are the others permitted
			}
			return err
		})
		p.letters.forget()
		if done == 0 && left == 0 && err != nil {
			return nil, err
		}
		answer := letterAnswer{Text: fmt.Sprintf("%d %s.", done, a.done)}
		if a.replays && done > 0 {
			answer.At = &began
		}
		if err != nil {
			answer.Problem = true
			if left > 0 { // otherwise reading them was broken off, or took too long
				answer.Text += fmt.Sprintf(" %d failed: %s.", left, strings.Join(slices.Sorted(maps.Keys(whys)), "; "))
			}
			answer.Text += " What is left is still listed."
			p.Log.Warn("some dead letters were left", zap.String("action", a.name), zap.Error(err))
		}
		return answer, nil
	}
}

// refusedFor says why a dead letter can never be replayed, or not by this worker; empty: it may
// be possible.
func refusedFor(err error) string {
	var denied *refusal
	switch {
	case errors.Is(err, handlers.ErrOrigin):
		return handlers.ErrOrigin.Error() + "; it can only be dropped"
	case errors.Is(err, handlers.ErrBodyRemoved):
		return handlers.ErrBodyRemoved.Error()
	case errors.Is(err, handlers.ErrNoRoom):
		return handlers.ErrNoRoom.Error()
	case errors.As(err, &denied):
		return denied.text
	}
	return ""
}
