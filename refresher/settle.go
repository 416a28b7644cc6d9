package refresher

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/options"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
)

// Settler turns the outcome of a refresh into the grant's next state. It stores and
// sends nothing. NewSettler makes one.
type Settler struct {
	announcer
	Policy Policy
	// Backoff spaces the tries after transient failures, RateLimited and Credentials those
	// after failures of no single grant.
	Backoff, RateLimited, Credentials config.Backoff
	// Grace is how long the institution is assumed to still take a refresh token after the
	// answer with the next one was lost.
	Grace     time.Duration
	Retention time.Duration  // of the record of an expired grant
	Rand      func() float64 // numbers in [0, 1)
}

// SettlerOptions for NewSettler. Source may be empty.
type SettlerOptions struct {
	Config   config.Config
	Subjects events.Subjects
	Now      func() time.Time
	NewID    func() string  // makes the ids of events
	Rand     func() float64 // numbers in [0, 1)
	Source   string         // events.SourceOf the installation
}

// NewSettler returns the Settler of a configuration.
func NewSettler(o SettlerOptions) (Settler, error) {
	if err := options.Require("a settler", o, "Config", "Now", "NewID", "Rand"); err != nil {
		return Settler{}, err
	}
	c := o.Config
	return Settler{
		announcer: announcer{Subjects: o.Subjects, Now: o.Now, NewID: o.NewID, Source: o.Source}, Policy: NewPolicy(c), Rand: o.Rand,
		Backoff: c.Refresh.Backoff, RateLimited: c.Refresh.RateLimited, Credentials: c.Refresh.Credentials,
		Grace: c.Refresh.Grace, Retention: c.Retention.Expired,
	}, nil
}

// ApplyAnswer applies the tokens of an answer: the caller seals the returned set for g's
// new version. What does not fit into one grant is left out: display names first, then
// accounts, never the refresh token. sent is when the request went out, from which
// stated lifetimes count (the institution's clock started no earlier).
func (s Settler) ApplyAnswer(g *store.Grant, tokens store.TokenSet, a Answer, renewed bool, epoch int64, sent time.Time) (store.TokenSet, error) {
	tokens, _, err := s.applyAnswer(g, tokens, a, renewed, epoch, sent)
	return tokens, err
}

func (s Settler) applyAnswer(g *store.Grant, tokens store.TokenSet, a Answer, renewed bool, epoch int64, sent time.Time) (store.TokenSet, unusual, error) {
	sent = store.Milli(sent)
	g.Heal(&tokens)
	a = bounded(a)
	share, before := whose(g, &tokens, a), *g
	report := unusual{byPosition: share.byPosition, ownerless: share.ownerless, separate: len(share.own)}
	rotated := !share.refreshToken.Empty()
	if rotated {
		tokens.RefreshToken = share.refreshToken
	}
	covered, leftOut := spreadTokens(g, &tokens, share, nextLifetime(g.Access, sent, a.ExpiresIn))
	report.leftOut = leftOut
	if rotated || a.RefreshExpiresIn > 0 {
		next := nextLifetime(g.Refresh, sent, a.RefreshExpiresIn)
		// The same end, within the precision of a remaining lifetime in seconds and of a call.
		if had := g.Refresh; !rotated && had != nil && had.ExpiresAt != nil && !had.Assumed && next.ExpiresAt.Sub(*had.ExpiresAt).Abs() < time.Minute {
			next.Since, next.RequestedAt, next.Warned = had.Since, had.RequestedAt, had.Warned
		}
		g.Refresh = next
	}
	if renewed && !rotated && g.Refresh != nil {
		g.Refresh.RequestedAt = &sent
	}
	behind := s.keepUncovered(g, &before, tokens, covered, sent)
	report.uncovered = behind.accounts

	now := store.Milli(s.Now())
	g.Version++
	g.Applied = max(g.Applied, epoch)
	active := g.State == store.Active
	g.State, g.Reason, g.PurgeAt = store.Active, "", nil
	g.Deferrals, g.Unknown, g.Lease = 0, nil, nil
	g.Refusals = nil
	g.MFA, tokens.Interim = nil, secret.Text{}
	if len(covered) == 0 {
		if !active {
			g.Warned = ""
		}
		return tokens, report, s.withoutAccessToken(g, rotated && !cameAlone(&before))
	}
	g.Attempts, g.Failing, g.Warned = 0, nil, ""
	s.Schedule(g, s.Policy.Next(g))
	withNew := slices.DeleteFunc(slices.Clone(g.Accounts), func(account store.Account) bool { return !covered[account.ID] })
	if err := s.announce(g, events.TokenRefreshed, g.LifecycleOf(withNew, "")); err != nil {
		return tokens, report, err
	}
	for _, end := range behind.warn {
		if err := s.announceOlderAccess(g, events.TokenExpiring, end); err != nil {
			return tokens, report, err
		}
	}
	if a.Partial && !rotated {
		// The next refresh token may have been in the part that was lost. The institution may
		// take the presented one for a while.
		g.Unknown, g.Attempts = &now, 1
		return tokens, report, s.again(g, now, delay(s.Backoff, 0, s.Rand()), s.Backoff.Min)
	}
	return tokens, report, s.warnOfRefreshToken(g, now)
}

// spreadTokens puts the tokens of an answer into the set. It returns the ids of the
// accounts that got an access token, which lives as access says, and how many found no room.
func spreadTokens(g *store.Grant, tokens *store.TokenSet, share shares, access *store.Lifetime) (covered map[string]bool, leftOut int) {
	if len(knownIDs(g)) == 0 && len(share.accounts) > 0 {
		if own := tokens.Account(""); own != nil && len(share.accounts) == 1 && share.accounts[0].TokenID.Empty() {
			share.accounts[0].TokenID = own.TokenID
		}
		tokens.Accounts = nil // of accounts that were not known
	}
	m := newMerger(g, tokens)
	m.makeRoom(share.accounts)
	covered = map[string]bool{}
	for _, in := range share.accounts {
		if m.add(in, access) {
			covered[in.ID] = true
		} else {
			leftOut++
		}
	}
	if len(covered) > 0 {
		g.Access = access
	}
	for _, id := range slices.Sorted(maps.Keys(share.own)) {
		if !m.own(id, share.own[id]) {
			leftOut++
		}
	}
	return covered, leftOut
}

// withoutAccessToken is for an answer without access tokens, which may have brought a new
// refresh token. The access tokens at hand are served as long as they live. New ones are
// requested at once (first), or after a pause if that was just done.
func (s Settler) withoutAccessToken(g *store.Grant, first bool) error {
	now := store.Milli(s.Now())
	if first {
		g.Attempts = 0
	}
	g.Attempts++
	if g.Attempts > 1 {
		return s.again(g, now, delay(s.Backoff, g.Attempts-2, s.Rand()), s.Backoff.Min)
	}
	s.Schedule(g, due(now, store.Refresh))
	return s.AnnounceEnds(g, now, false)
}

// cameAlone reports whether a grant's refresh token came without access tokens.
func cameAlone(g *store.Grant) bool {
	if g.Refresh == nil || g.Access == nil {
		return g.Refresh != nil && !g.Refresh.Since.Equal(g.ConnectedAt)
	}
	return !g.Refresh.Since.Equal(g.Access.Since) && g.Access.Version != g.Version
}

// nextLifetime is the lifetime of a token obtained at since. Where the answer states no lifetime,
// that of the last token is assumed.
func nextLifetime(before *store.Lifetime, since time.Time, stated time.Duration) *store.Lifetime {
	life := &store.Lifetime{Since: since}
	switch {
	case stated > 0:
		life.ExpiresAt = new(since.Add(stated))
	case before != nil && before.ExpiresAt != nil:
		life.ExpiresAt, life.Assumed = new(since.Add(max(before.ExpiresAt.Sub(before.Since), time.Second))), true
	}
	return life
}

// ApplyFailure applies a refresh that brought no tokens.
func (s Settler) ApplyFailure(g *store.Grant, f *Failure) error {
	now := store.Milli(s.Now())
	g.Lease = nil
	if g.Failing == nil {
		g.Failing = &store.Failing{Since: now}
	}
	g.Failing.At, g.Failing.Why, g.Failing.Detail, g.Failing.Type, g.Failing.Hash = now, string(f.Class), f.Detail, f.ErrorType, f.ErrorHash
	if f.Ambiguous && g.Unknown == nil {
		g.Unknown = &now
	}
	switch f.Class {
	case RateLimited:
		return s.deferAttempt(g, now, s.RateLimited, f.RetryAfter, max(f.RetryAfter, s.RateLimited.Min))
	case Denied:
		return s.deferAttempt(g, now, s.Credentials, 0, s.Credentials.Min)
	case MustAct:
		g.Warned = f.Reason
		if err := s.Announce(g, events.TokenExpiring, f.Reason); err != nil {
			return err
		}
		if g.MFA == nil && g.Access == nil && (g.Refresh == nil || g.Refresh.ExpiresAt == nil) {
			return s.Expire(g, f.Reason) // nothing that could still be served
		}
		g.State, g.Reason = store.MustAct, f.Reason
		s.Schedule(g, s.Policy.Next(g))
		return nil
	case BadRequest, Dead:
		return s.applyRefusal(g, f, now)
	case Unlawful:
		return s.applyLegalRefusal(g, f, now)
	}
	g.Attempts++
	wait := max(f.RetryAfter, delay(s.Backoff, g.Attempts-1, s.Rand()), s.waitForLatestAttempt(g, now))
	return s.again(g, now, wait, max(f.RetryAfter, s.Backoff.Min))
}

// deferAttempt makes a try due that no failed one counts against.
func (s Settler) deferAttempt(g *store.Grant, now time.Time, b config.Backoff, retryAfter, least time.Duration) error {
	wait := max(retryAfter, delay(b, g.Deferrals, 1))
	g.Deferrals++
	return s.again(g, now, wait+s.jitter(wait/4), least)
}

// waitForLatestAttempt is the wait once the institution may no longer take a refresh token whose
// replacement was lost: presenting it could only bring the end nearer, so the access
// token is served for as long as possible before the last tries.
func (s Settler) waitForLatestAttempt(g *store.Grant, now time.Time) time.Duration {
	last := s.Policy.LatestAttempt(g)
	if g.Unknown == nil || now.Before(g.Unknown.Add(s.Grace)) || last == nil {
		return 0
	}
	return last.Sub(now)
}

// again makes the next try due after a wait, unless no try can help any more. A wait past
// the last try that keeps the grant served is cut short, to no less than least.
func (s Settler) again(g *store.Grant, now time.Time, wait, least time.Duration) error {
	if done, err := s.WithoutRefresh(g); done || err != nil {
		return err
	}
	at := store.Milli(now.Add(wait)) // as it is scheduled
	if last := s.Policy.LatestAttempt(g); last != nil && at.After(*last) {
		if room := last.Sub(now.Add(least)); room >= 0 {
			// Grants whose tokens end together don't all come at once.
			at = last.Add(-s.jitter(min(room, g.Access.AtMostTenth(s.Policy.Lead))))
		}
	}
	if err := s.AnnounceEnds(g, now, s.Policy.EndsBefore(g, at)); err != nil {
		return err
	}
	s.Schedule(g, due(at, store.Refresh))
	return nil
}

// AnnounceEnds announces what a grant is about to be without: an access token, if the next try
// comes too late (once a version), and a refresh token (once for each stated end).
func (s Settler) AnnounceEnds(g *store.Grant, now time.Time, late bool) error {
	if !NeedsCall(g, now) {
		return nil
	}
	if g.Warned == "" && late {
		if err := s.warn(g, events.ReasonRefreshFailing); err != nil {
			return err
		}
	}
	return s.warnOfRefreshToken(g, now)
}

// warn announces once that a grant is about to be without an access token.
func (s Settler) warn(g *store.Grant, reason events.Reason) error {
	if g.Warned == reason {
		return nil
	}
	g.Warned = reason
	return s.Announce(g, events.TokenExpiring, reason)
}

func (s Settler) warnOfRefreshToken(g *store.Grant, now time.Time) error {
	if at := s.Policy.WarnOfRefreshToken(g); at == nil || g.Refresh.Warned || now.Before(*at) {
		return nil
	}
	g.Refresh.Warned = true
	return s.Announce(g, events.TokenExpiring, events.ReasonRefreshTokenExpiring)
}

// NeedsCall reports whether the next action of a grant calls Mesh. Anything else follows
// from the stored grant alone.
func NeedsCall(g *store.Grant, now time.Time) bool {
	return g.State == store.Active && g.Refresh != nil && !RefreshTokenExpired(g, now)
}

// RefreshTokenExpired reports whether the stated lifetime of the refresh token has ended.
func RefreshTokenExpired(g *store.Grant, now time.Time) bool {
	return g.Refresh == nil || g.Refresh.Expired(now) && !g.Refresh.Assumed
}

// Expire ends the grant. If an answer was lost before, that is the reason.
func (s Settler) Expire(g *store.Grant, reason events.Reason) error {
	reason = announcedReason(g, reason)
	g.State, g.Reason, g.PurgeAt = store.Expired, reason, new(store.Milli(s.Now().Add(s.Retention)))
	g.Lease, g.MFA = nil, nil
	err := s.Announce(g, events.TokenExpired, reason) // depends on what was announced of accounts
	if g.Access != nil {
		g.Access.EndAnnounced = false // an operator may revive it
	}
	g.OlderAccess = nil
	if !g.HasSeparateRefreshTokens {
		g.AccountsDue = nil
	}
	s.Schedule(g, nil)
	return err
}

// endNewest announces the end of a grant's newest access tokens, while others still live.
func (s Settler) endNewest(g *store.Grant, reason events.Reason) error {
	g.Access.Warned, g.Access.EndAnnounced = true, true
	if accounts := g.EndingAt(g.Access.ExpiresAt); len(accounts) > 0 {
		if err := s.announce(g, events.TokenExpired, g.LifecycleOf(accounts, announcedReason(g, reason))); err != nil {
			return err
		}
	}
	s.Schedule(g, s.Policy.Next(g))
	return nil
}

// WithoutRefresh does what is due for a grant that is not refreshed (any more): it warns
// or expires it, or, when only the refresh token has ended, has the access token served
// to its end. It reports false when a refresh is due.
func (s Settler) WithoutRefresh(g *store.Grant) (done bool, err error) {
	now := store.Milli(s.Now())
	if NeedsCall(g, now) {
		return false, nil
	}
	if g.State == store.Active && g.Refresh != nil {
		if g.LastAccess().Expired(now) {
			return true, s.Expire(g, events.ReasonRefreshTokenExpired)
		}
		g.Refresh, g.Reason = nil, events.ReasonRefreshTokenExpired
	}
	reason := cmp.Or(g.Reason, events.ReasonNoRefreshToken)
	ends := s.Policy.untilTheEnd(g)
	switch {
	case ends == nil:
		s.Schedule(g, nil)
	case ends.Action == store.Warn && !now.Before(ends.At):
		if err := s.warn(g, reason); err != nil {
			return true, err
		}
		s.Schedule(g, s.Policy.Next(g))
	case !now.Before(ends.At) && g.Access != nil && !g.LastAccess().Expired(now):
		return true, s.endNewest(g, reason)
	case !now.Before(ends.At):
		return true, s.Expire(g, reason)
	default:
		s.Schedule(g, ends)
	}
	return true, nil
}

// delay grows exponentially from b.Min to b.Max with the number of earlier tries; chance
// in [0, 1] scales it (full jitter).
func delay(b config.Backoff, tries int, chance float64) time.Duration {
	d := b.Min
	for ; tries > 0 && d < b.Max; tries-- {
		d *= 2
	}
	return time.Duration(float64(min(d, b.Max)) * chance)
}

func (s Settler) jitter(d time.Duration) time.Duration { return time.Duration(s.Rand() * float64(d)) }

// AsFailure returns the *Failure in err, or a transient one around it.
func AsFailure(err error) *Failure {
	var f *Failure
	if errors.As(err, &f) {
		return f
	}
	return &Failure{Class: Transient, Detail: "internal", Err: err}
}
