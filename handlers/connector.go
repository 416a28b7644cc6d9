package handlers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
	"github.com/latchkey/latchkey/store/envelope"
)

// Connector turns payloads into grants, and keeps every account in exactly one
// grant of its user, the one that was connected last, and every refresh token in
// exactly one grant of all users.
//
// It needs no transaction. A new grant is written first and the user's grants
// are sorted out after that, so that of two workers who write at once at least
// one sees both; the order that decides is the same for all.
type Connector struct {
	Store    *store.Store
	Envelope *envelope.Envelope
	// Fingerprints keep up the chains of grants.
	Fingerprints *store.Fingerprints
	Settler      refresher.Settler
	Dispatcher   *refresher.Dispatcher
	// RemoveAtMesh: what is disconnected is to be removed at Mesh too.
	RemoveAtMesh bool
	// EraseCopies erases what lies elsewhere of what was disconnected; nil:
	// there is nothing else.
	EraseCopies func(ctx context.Context, scope store.Scope, at time.Time) error
	// Leave makes dead letters of what waits for that in the token set of a grant which
	// is about to go, and returns the grant as it then is; see refresher.ParkLeftovers. Nil:
	// nothing waits.
	Leave func(ctx context.Context, g *store.Grant) *store.Grant
	// Remember is how long a disconnect is remembered.
	Remember time.Duration
	// Audit may be nil.
	Audit *audit.Log
	Log   *zap.Logger
	// Rejections tell of connects that changed nothing; nil: nobody is told.
	Rejections *Rejections
	// Outcomes counts connects by what became of them; it may be nil.
	Outcomes *prometheus.CounterVec
}

// Connect stores the grants of a payload that was obtained at a time, and
// announces them. What is already known, or older than what is known, changes
// nothing. After an error the message has to come again.
func (c *Connector) Connect(ctx context.Context, in events.Connected, at time.Time) error {
	_, err := c.connect(ctx, in, at)
	return err
}

// connect is Connect, and returns why a connect changed nothing; "": it did.
func (c *Connector) connect(ctx context.Context, in events.Connected, at time.Time) (events.RejectedReason, error) {
	at = store.Milli(at)
	with, err := c.Fingerprints.Sealer(ctx, in.UserID)
	if err != nil {
		return "", err
	}
	ctx, passes := passing(ctx)
	candidates := grantsOf(in, at, with.Key)
	var last *seen
	for _, candidate := range candidates {
		if last, err = c.put(ctx, candidate, with); err != nil {
			return "", err
		}
	}
	if last != nil && len(candidates) == 1 {
		err = c.resolve(ctx, in.UserID, last)
	} else {
		err = c.Resolve(ctx, in.UserID)
	}
	return passes.reason(len(candidates)), err
}

// candidate is a grant as a payload has it, not yet sealed.
type candidate struct {
	grant  *store.Grant
	tokens store.TokenSet
	// formerID is the id that earlier releases gave the grant where the broker
	// type was written so.
	formerID func(brokerType string) string
	// reason is what the event about the grant says.
	reason events.Reason
	// stated: the publisher said when the tokens were obtained.
	stated bool
}

// is reports whether a grant of the user is the candidate's, by the id of today or
// of an earlier release.
func (in candidate) is(g *store.Grant) bool {
	return g.ID == in.grant.ID || events.SameBroker(g.BrokerType, in.grant.BrokerType) && (g.ID == in.formerID(g.BrokerType) || in.byKey(g))
}

// byKey reports whether a grant has the id that an earlier release made of the broker's
// key, however the broker type is written.
func (in candidate) byKey(g *store.Grant) bool {
	return g.ID == in.formerID(events.BrokerKey(g.BrokerType))
}

// partOf reports whether a grant has accounts of which the candidate says nothing.
// They came to it with its refresh token, and stay with that.
func (in candidate) partOf(g *store.Grant) bool {
	return g.State != store.Revoked && len(in.grant.Accounts) > 0 &&
		slices.ContainsFunc(g.Accounts, func(a store.Account) bool { return in.grant.Account(a.ID) == nil })
}

// sharing returns those of a user's grants that are the candidate's, or have its account.
func (in candidate) sharing(known []*store.Grant) (all []*store.Grant) {
	for _, g := range known {
		if in.is(g) || events.SameBroker(g.BrokerType, in.grant.BrokerType) && slices.ContainsFunc(in.grant.Accounts, func(a store.Account) bool { return g.Account(a.ID) != nil }) {
			all = append(all, g)
		}
	}
	return all
}

// repeats reports whether a candidate without a refresh token brings nothing but tokens
// that a grant has. A token id without a refresh token takes the place of one.
func (in candidate) repeats(g *store.Grant, tokens store.TokenSet) bool {
	return !slices.ContainsFunc(in.tokens.Accounts, func(its store.AccountToken) bool {
		own := tokens.Account(its.AccountID)
		return own == nil || !own.AccessToken.Equal(its.AccessToken) || !its.TokenID.Empty() && (g.Refresh != nil || !own.TokenID.Equal(its.TokenID))
	})
}

// beside returns the candidate with the id that it has where a grant of more accounts
// has its own.
func (in candidate) beside() candidate {
	g := *in.grant
	g.ID = store.GrantIDBeside(g.ID)
	return candidate{grant: &g, tokens: in.tokens, formerID: func(string) string { return g.ID }}
}

// grantsOf groups the accounts of a payload by refresh token. The key makes the ids of
// grants whose accounts are not known.
func grantsOf(in events.Connected, at time.Time, key store.FingerprintKey) []candidate {
	var out []candidate
	if a := in.Payload.AccessToken; a != nil {
		for _, group := range grouped(a.AccountTokens) {
			out = append(out, granted(in.UserID, a, group, at, key))
		}
	}
	if d := in.Payload.DelayedAuth; d != nil && !slices.ContainsFunc(out, func(c candidate) bool {
		return events.SameBroker(c.grant.BrokerType, d.BrokerType) && c.tokens.RefreshToken.Equal(d.RefreshToken)
	}) {
		out = append(out, delayed(in.UserID, *d, at, key))
	}
	for i := range out {
		out[i].grant.ConnectedAt = at
		out[i].grant.Labels, out[i].tokens.Metadata = in.Labels, in.Metadata
		if !in.Published.IsZero() {
			out[i].grant.Published = in.Published.UnixNano()
		}
		out[i].stated = !in.ConnectedAt.IsZero()
		out[i].tokens.Origin = store.OriginOf(out[i].tokens.RefreshToken)
	}
	return out
}

// granted is the grant of accounts that share a refresh token, or of one that has none.
// An account without an id is not known before a refresh names it; its tokens are those
// of the grant until then.
func granted(userID string, a *events.AccessTokenPayload, group []events.AccountToken, at time.Time, key store.FingerprintKey) candidate {
	access, managed := lifeOf(at, a.ExpiresInSeconds), managedBy(group)
	if managed {
		access = lifeOf(at, 0)
	}
	tokens := store.TokenSet{RefreshToken: group[0].RefreshToken}
	g := &store.Grant{UserID: userID, BrokerType: a.BrokerType, BrokerName: a.BrokerName, Accounts: []store.Account{}}
	var ids []string
	for _, t := range group {
		if tokens.TradeToken.Empty() {
			tokens.TradeToken = t.TradeToken
		}
		if managed {
			t.AccessToken = t.TokenID
		}
		account := store.Account{ID: t.Account.AccountID, Name: t.Account.AccountName}
		if !t.AccessToken.Empty() {
			account.ExpiresAt, g.Access = access.ExpiresAt, access
		}
		if !t.AccessToken.Empty() || !t.TokenID.Empty() {
			tokens.Accounts = append(tokens.Accounts, store.AccountToken{AccountID: account.ID, AccessToken: t.AccessToken, TokenID: t.TokenID})
		}
		if account.ID != "" {
			ids, g.Accounts = append(ids, account.ID), append(g.Accounts, account)
		}
	}
	if !tokens.RefreshToken.Empty() {
		g.Refresh = lifeOf(at, a.RefreshTokenExpiresInSeconds)
	}
	if len(ids) > 0 {
		g.ID = store.GrantID(userID, a.BrokerType, ids...)
		return candidate{grant: g, tokens: tokens, formerID: func(brokerType string) string { return store.FormerGrantID(userID, brokerType, ids...) }}
	}
	// The refresh token stands for the accounts, or else the only token that there is.
	known := tokens.RefreshToken
	if known.Empty() {
		known = tokens.Accounts[0].AccessToken
	}
	g.ID = store.DelayedGrantID(userID, a.BrokerType, key.Of(known))
	return candidate{grant: g, tokens: tokens, formerID: func(brokerType string) string { return store.FormerDelayedGrantID(userID, brokerType, known.Reveal()) }}
}

// managedBy reports whether Mesh keeps the token of a group alive: an account with
// a token id and nothing to refresh. The token id is handed out as its access token
// (Mesh's guide to managed tokens), and has no end.
func managedBy(group []events.AccountToken) bool {
	return group[0].RefreshToken.Empty() && !group[0].TokenID.Empty() // without a refresh token a group is one account
}

// delayed is a grant of which only the refresh token is known.
func delayed(userID string, d events.DelayedAuthPayload, at time.Time, key store.FingerprintKey) candidate {
	return candidate{
		grant: &store.Grant{
			ID:     store.DelayedGrantID(userID, d.BrokerType, key.Of(d.RefreshToken)),
			UserID: userID, BrokerType: d.BrokerType, BrokerName: d.BrokerName,
			Accounts: []store.Account{},
			Refresh:  lifeOf(at, d.RefreshTokenExpiresInSeconds),
		},
		tokens: store.TokenSet{RefreshToken: d.RefreshToken},
		formerID: func(brokerType string) string {
			return store.FormerDelayedGrantID(userID, brokerType, d.RefreshToken.Reveal())
		},
	}
}

// grouped puts accounts that share a refresh token together; an account
// without one stands alone. An account named twice counts once, as it was
// named last.
func grouped(tokens []events.AccountToken) [][]events.AccountToken {
	last := map[string]int{}
	for i, t := range tokens {
		last[t.Account.AccountID] = i
	}
	known := func(t events.AccountToken) bool { return t.Account.AccountID != "" }
	var groups [][]events.AccountToken
	byRefreshToken := map[string]int{}
	for i, t := range tokens {
		if known(t) && last[t.Account.AccountID] != i {
			continue
		}
		at, shared := byRefreshToken[t.RefreshToken.Reveal()]
		if shared && !t.RefreshToken.Empty() {
			groups[at] = append(groups[at], t)
			continue
		}
		byRefreshToken[t.RefreshToken.Reveal()] = len(groups)
		groups = append(groups, []events.AccountToken{t})
	}
	return groups
}

func lifeOf(since time.Time, lasts events.Seconds) *store.Life {
	life := &store.Life{Since: since}
	if d := lasts.Duration(); d > 0 {
		end := since.Add(d)
		life.ExpiresAt = &end
	}
	return life
}

// spentToken stands among the accounts that were disconnected for a refresh token that was
// replaced in a grant that is gone. No account has such an id.
const spentToken = "\x00"

// revoked returns when the accounts of a grant were last disconnected, and spentToken
// where its refresh token is a spent one, by its fingerprint. until is how long nobody
// may present that, since somebody else may be at it; zero: anybody may.
func (c *Connector) revoked(ctx context.Context, g *store.Grant, token string) (revoked map[string]time.Time, until time.Time, err error) {
	ids := make([]string, len(g.Accounts))
	for i, a := range g.Accounts {
		ids[i] = a.ID
	}
	if len(ids) == 0 {
		ids = []string{itself(g)}
	}
	revoked, fate, err := c.Store.RevocationsAndFate(ctx, g.UserID, g.BrokerType, ids, token)
	if err == nil && fate.Spent {
		revoked[spentToken] = time.Time{} // that is no time of a disconnect
	}
	return revoked, fate.Until, err
}

// remember has the refresh tokens of a grant that is disconnected known as what they are:
// other connects of the same login may still come.
func (c *Connector) remember(ctx context.Context, g *store.Grant, seen *seen) error {
	if g.Chain == nil {
		return nil
	}
	now := c.Settler.Now()
	for _, l := range g.Chain.Links {
		if l.Until == nil || !l.Rotated {
			continue
		}
		if err := c.Store.Spend(ctx, l.Token, now, now.Add(c.Remember)); err != nil {
			return err
		}
	}
	head := g.Chain.Head()
	if head == "" || g.Lease == nil || hands(g) || seen.contested(g) {
		return nil // nobody presents it, or another grant awaits the answer
	}
	return c.Store.Await(ctx, head, answerUntil(g, now))
}

// itself stands for a grant among the accounts that were disconnected: of one whose
// accounts are not known, nobody could tell by these that a connect is from before
// that. No account has such an id.
func itself(g *store.Grant) string { return "\x00" + g.ID }

// superseded reports whether every account of a grant was disconnected since,
// or stands in a newer grant.
func superseded(g *store.Grant, known []*store.Grant, revoked map[string]time.Time) bool {
	return len(lost(g, known, revoked)) == max(len(g.Accounts), 1)
}

// lost returns the accounts of a grant that are no longer its own; for a grant
// whose accounts are not known yet, "" when it was disconnected. All are lost with a
// refresh token that is spent: the user has disconnected what came of it.
func lost(g *store.Grant, known []*store.Grant, revoked map[string]time.Time) []string {
	_, spent := revoked[spentToken]
	if spent && len(g.Accounts) > 0 {
		return g.AccountIDs()
	}
	if len(g.Accounts) == 0 {
		if spent {
			return []string{""}
		}
		for _, id := range []string{"", itself(g)} {
			if at, ok := revoked[id]; ok && !g.ConnectedAt.After(at) {
				return []string{""}
			}
		}
		return nil
	}
	var out []string
	for _, a := range g.Accounts {
		at, ok := revoked[a.ID]
		gone := ok && !g.ConnectedSince(a.ID).After(at)
		if gone || g.InNewer(a.ID, known) {
			out = append(out, a.ID)
		}
	}
	return out
}

// byConnect compares grants by the time they were connected, then by the time when
// that was published.
func byConnect(a, b *store.Grant) int {
	return cmp.Or(a.ConnectedAt.Compare(b.ConnectedAt), cmp.Compare(a.Published, b.Published))
}

// newer orders the grants of a user: byConnect, then by id, so that no two are equal.
func newer(a, b *store.Grant) bool {
	return cmp.Or(byConnect(a, b), cmp.Compare(a.ID, b.ID)) > 0
}

// Resolve makes one of grants that hold one refresh token, and takes from each
// grant of a user the accounts that are no longer its own. It may run at any time,
// on any worker. The error is a *store.LeasedError where something has to wait for
// the end of a refresh; all else is done.
func (c *Connector) Resolve(ctx context.Context, userID string) error {
	seen, err := c.look(ctx, userID)
	if err != nil {
		return err
	}
	return c.resolve(ctx, userID, seen)
}

func (c *Connector) resolve(ctx context.Context, userID string, seen *seen) error {
	changed, err := false, seen.unread
	if err == nil {
		changed, err = c.splitAll(ctx, seen.known)
	}
	if err == nil && !changed {
		changed, err = c.contest(ctx, seen)
	}
	var waits *store.LeasedError
	erasing := errors.Is(err, envelope.ErrKMS) // no erasure waits for KMS, all else does
	switch {
	case changed && err == nil, errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrNotFound):
		return c.Resolve(ctx, userID)
	case erasing:
		err = &unsortedError{err}
	case err != nil && !errors.As(err, &waits):
		return err
	}
	unsorted := err
	for _, g := range seen.known {
		if g.State == store.Revoked {
			continue
		}
		head := g.Chain.Head()
		if hands(g) && g.Lease.Held(c.Settler.Now()) {
			head = "" // whether it is spent is settled when the answer that is awaited is there
		}
		revoked, until, err := c.revoked(ctx, g, head)
		if err != nil {
			return err
		}
		gone := lost(g, seen.known, revoked)
		switch {
		case len(gone) == 0 && g.Lease == nil && until.After(c.Settler.Now()):
			next := g.Clone()
			next.Lease = awaiting(until)
			err = c.Store.Save(ctx, next)
		case len(gone) == 0, erasing && reasonFor(g, revoked) != events.ReasonDisconnected:
			continue
		case len(gone) == max(len(g.Accounts), 1):
			reason := reasonFor(g, revoked)
			if reason == events.ReasonReplaced {
				err = c.bequeath(ctx, g, seen.known)
			} else {
				last := slices.MaxFunc(slices.Collect(maps.Values(revoked)), time.Time.Compare)
				err = c.Store.Revoke(ctx, store.Scope{User: g.UserID, Broker: g.BrokerType, Account: itself(g)}, last, c.Settler.Now().Add(c.Remember))
				if err == nil {
					err = c.remember(ctx, g, seen)
				}
			}
			if err == nil {
				err = c.revoke(ctx, g, reason)
			}
			if err == nil {
				passesOf(ctx).lose(g)
			}
		default:
			err = c.trim(ctx, g, gone, reasonFor(g, revoked))
		}
		if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
			// Refreshed or changed in between: look again.
			return c.Resolve(ctx, userID)
		}
		if errors.Is(err, envelope.ErrKMS) {
			erasing, unsorted = true, err // what only takes tokens away goes on
			continue
		}
		if err != nil {
			return err
		}
	}
	return unsorted
}

// unsortedError says why it is not known which grants hold one refresh token. What was
// disconnected is gone all the same.
type unsortedError struct{ error }

func (e *unsortedError) Unwrap() error { return e.error }

func reasonFor(g *store.Grant, revoked map[string]time.Time) events.Reason {
	for account, at := range revoked {
		if !g.ConnectedSince(account).After(at) {
			return events.ReasonDisconnected
		}
	}
	return events.ReasonReplaced
}

// revoke takes a grant's tokens away; the record follows when its event is out, and
// its removal at Mesh has ended.
func (c *Connector) revoke(ctx context.Context, g *store.Grant, reason events.Reason) error {
	if reason != events.ReasonDisconnected { // else nothing is to stay of it
		if err := c.leave(ctx, g); err != nil {
			return err
		}
	}
	next := g.Clone()
	next.State, next.Reason = store.Revoked, reason
	next.Sealed, next.Chain, next.Lease, next.PurgeAt, next.Left = envelope.Blob{}, nil, nil, nil, false
	c.Settler.Schedule(next, nil)
	if err := c.Settler.Announce(next, events.TokenRevoked, reason); err != nil {
		return err
	}
	if reason == events.ReasonDisconnected && c.RemoveAtMesh {
		c.Settler.KeepForRemoval(ctx, c.Envelope, g, next)
	}
	if err := c.Store.Save(ctx, next); err != nil {
		return err
	}
	c.Audit.Add(g.AuditRecord(audit.Erased, string(reason), g.AccountIDs()))
	tracing.Log(ctx, c.Log).Info("revoked", zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.String("reason", string(reason)))
	c.Dispatcher.Send(ctx, next)
	return nil
}

// leave makes dead letters of what waits for that in the token set of a grant. The error
// wraps store.ErrConflict where it did: the grant is another by now.
func (c *Connector) leave(ctx context.Context, g *store.Grant) error {
	if !g.Left || c.Leave == nil {
		return nil
	}
	if _, ok, err := c.opened(ctx, g); err != nil || !ok {
		return err
	}
	if c.Leave(ctx, g).Left {
		return fmt.Errorf("grant %s can't go before what it holds is a dead letter", g.ID)
	}
	return fmt.Errorf("revoking grant %s after making dead letters: %w", g.ID, store.ErrConflict)
}

// bequeath has the grant that replaces another know the other's refresh tokens as spent.
func (c *Connector) bequeath(ctx context.Context, g *store.Grant, known []*store.Grant) error {
	for _, other := range known {
		if len(lost(g, []*store.Grant{other}, nil)) == 0 {
			continue
		}
		next := other.Clone()
		next.Chain = other.Chain.Inheriting(g.Chain, c.Settler.Now())
		if slices.Equal(next.Chain.Fingerprints(), other.Chain.Fingerprints()) {
			return nil
		}
		if err := c.Store.Save(ctx, next); err != nil {
			return err
		}
		*other = *next
		return nil
	}
	return nil
}

// trim takes some accounts out of a grant. A refresh under way is not
// disturbed: its answer is applied to what remains.
func (c *Connector) trim(ctx context.Context, g *store.Grant, gone []string, reason events.Reason) error {
	with, err := c.Fingerprints.Sealer(ctx, g.UserID)
	if err != nil {
		return err
	}
	next := g.Clone()
	next.Accounts = slices.DeleteFunc(next.Accounts, func(a store.Account) bool { return slices.Contains(gone, a.ID) })
	tokens, err := store.OpenTokens(ctx, c.Envelope, g.Sealed, g.Binding())
	switch {
	case err == nil:
		tokens.Accounts = slices.DeleteFunc(tokens.Accounts, func(a store.AccountToken) bool { return slices.Contains(gone, a.AccountID) })
		next.Version++
		with.SealTo(next, tokens, c.Settler.Now(), false)
		if !next.Apart {
			next.AccountsDue = c.Settler.Policy.AccountsDue(next)
		}
	case !errors.Is(err, envelope.ErrSealed): // what opens for nobody can stay as it is
		return fmt.Errorf("taking accounts out of a grant: %w", err)
	}
	c.Settler.Schedule(next, next.Due)
	if err := c.Settler.Announce(next, events.TokenStored, reason); err != nil {
		return err
	}
	if err := c.Store.Save(ctx, next); err != nil {
		return err
	}
	c.Audit.Add(g.AuditRecord(audit.Erased, string(reason), gone))
	if next.Version != g.Version {
		c.Audit.Add(next.AuditRecord(audit.Sealed, audit.OutcomeTrim, next.AccountIDs()))
	}
	c.Dispatcher.Send(ctx, next)
	return nil
}

// Disconnect forgets what lies in a scope and was connected until a time.
func (c *Connector) Disconnect(ctx context.Context, scope store.Scope, at time.Time) error {
	// First the memory of it, then the deed: a connect that arrives in between
	// finds one or the other.
	if err := c.Store.Revoke(ctx, scope, at, c.Settler.Now().Add(c.Remember)); err != nil {
		return err
	}
	var leased *store.LeasedError // of another matter, which a connect waits for
	var unsorted *unsortedError   // likewise
	if err := c.Resolve(ctx, scope.User); err != nil && !errors.As(err, &leased) && !errors.As(err, &unsorted) {
		return err
	}
	if scope.Broker == "" && scope.Account == "" {
		if _, err := c.Store.RetireUserKeys(ctx, scope.User, c.Settler.Now()); err != nil {
			return err
		}
	}
	if c.EraseCopies == nil {
		return nil
	}
	return c.EraseCopies(ctx, scope, at)
}
