package refresher

import (
	"time"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// A refusal does not end a grant by itself. token.expiring is announced at once, the access
// token is served to its end, and the refresh token is presented again after a pause: a
// refused token stays refused, and one refusal may be a slip of the institution's. The
// verdict comes when no further try fits in before that end.

// Pauses between tries of a refused token: while something is served they begin at
// refresh.backoff.max and double; where nothing is, one of shortOf has to do.
const (
	unlawfulMin = time.Hour
	unlawfulMax = 24 * time.Hour
)

// shortOf is the pause before confirming a refusal that leaves nothing to serve.
func shortOf(b config.Backoff) time.Duration { return delay(b, 4, 1) }

// cure changes the next request if that may be what was refused, and reports whether it
// did: it no longer asks for a new refresh token, which few institutions know; or the
// access token goes along, or no longer. Each is tried once in a row of refusals.
func cure(g *store.Grant, f *Failure, now time.Time) bool {
	row := store.Refusals{At: now, Next: now}
	if g.Refusals != nil {
		row = *g.Refusals
	}
	switch {
	case f.AskedForRefreshToken && g.Refresh != nil:
		g.Refresh.RequestedAt = &now
		return true
	case row.Changed || !(f.AccessTokenMissing && !g.SendAccess && g.Access != nil || f.AccessTokenUnwanted && g.SendAccess):
		return false
	}
	g.SendAccess, row.Changed = !g.SendAccess, true
	g.Refusals = &row
	return true
}

func curable(g *store.Grant, f *Failure) bool { return cure(g.Clone(), f, time.Time{}) }

func (s Settler) applyRefusal(g *store.Grant, f *Failure, now time.Time) error {
	if cure(g, f, now) {
		return s.again(g, now, 0, 0)
	}
	row := store.Refusals{At: now}
	if g.Refusals != nil {
		row = *g.Refusals
	}
	g.Refusals = &row
	g.Attempts++
	if f.Held {
		row.Times, row.Next = 0, now // refusals meanwhile count for nothing
		return s.again(g, now, s.Backoff.Max+s.jitter(s.Backoff.Max/4), s.Backoff.Min)
	}
	if row.Times == 0 || !now.Before(row.Next) {
		row.Times++
	}
	reason := announcedReason(g, f.Reason)
	if err := s.warn(g, reason); err != nil {
		return err
	}
	wait, room := s.untilNext(g, row, now)
	if row.Times > 1 && !room {
		return s.giveUp(g, reason, now)
	}
	if err := s.again(g, now, wait, shortOf(s.Backoff)); err != nil {
		return err
	}
	if g.Due != nil && g.Due.At.After(now) {
		row.Next = store.Milli(now.Add(g.Due.At.Sub(now) / 2)) // a try may come early by our clock, or be asked for
	}
	return nil
}

// untilNext is in how long a refused token is presented again, and whether its access
// token is still served then.
func (s Settler) untilNext(g *store.Grant, row store.Refusals, now time.Time) (wait time.Duration, room bool) {
	last := s.Policy.LatestAttempt(g)
	switch {
	case g.Access == nil || last != nil && last.Before(now.Add(shortOf(s.Backoff))):
		return shortOf(s.Backoff), false
	case last == nil: // served without a known end: one confirmation does
		return s.Backoff.Max, row.Times < 2
	}
	return s.Backoff.Max << min(row.Times-1, 16), true
}

// giveUp stops refreshing a grant: it expires with its last access token.
func (s Settler) giveUp(g *store.Grant, reason events.Reason, now time.Time) error {
	if g.LastAccess().Expired(now) {
		return s.Expire(g, reason)
	}
	g.State, g.Reason = store.MustAct, reason
	s.Schedule(g, s.Policy.Next(g))
	return nil
}

// applyLegalRefusal applies a refusal for legal reasons, which is announced once and tried again.
func (s Settler) applyLegalRefusal(g *store.Grant, f *Failure, now time.Time) error {
	if err := s.warn(g, f.Reason); err != nil {
		return err
	}
	return s.deferAttempt(g, now, config.Backoff{Min: unlawfulMin, Max: unlawfulMax}, f.RetryAfter, unlawfulMin)
}

// refusal reports whether a reason is that of a refresh token that was refused.
func refusal(reason events.Reason) bool {
	switch reason {
	case events.ReasonRejected, events.ReasonNotFound, events.ReasonBadRequest, events.ReasonOutcomeLost:
		return true
	}
	return false
}

// announcedReason is the reason in a grant's events: if an answer was lost before, that
// is why its token is refused.
func announcedReason(g *store.Grant, reason events.Reason) events.Reason {
	switch reason {
	case events.ReasonRejected, events.ReasonNotFound, events.ReasonBadRequest, events.ReasonRefreshTokenExpired:
		if g.Unknown != nil {
			return events.ReasonOutcomeLost
		}
	}
	return reason
}
