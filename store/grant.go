package store

import (
	"slices"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store/envelope"
)

// State of a grant.
type State string

const (
	// Active grants are refreshed.
	Active State = "active"
	// MustAct grants wait for their user; their access tokens are served until they
	// end.
	MustAct State = "must_act"
	// Expired grants are dead: only a new connect revives them.
	Expired State = "expired"
	// Revoked grants have lost their tokens, except for those that a removal at Mesh
	// needs. The record is deleted after the removal and the last event.
	Revoked State = "revoked"
)

// Grant is what one refresh renews: the accounts of one user at one broker that share a
// refresh token. Times have millisecond precision.
type Grant struct {
	ID         string        `bson:"_id"`
	UserID     string        `bson:"user"`
	BrokerType string        `bson:"broker"`
	BrokerName string        `bson:"brokerName"`
	Accounts   []Account     `bson:"accounts"`
	State      State         `bson:"state"`
	Reason     events.Reason `bson:"reason,omitempty"`

	// Labels are the publisher's, replaced as a whole.
	Labels map[string]string `bson:"labels,omitempty"`

	// ConnectedAt is when the user gave this grant. The newest connect wins.
	ConnectedAt time.Time `bson:"connectedAt"`
	// Published is when NATS stored the connect, in nanoseconds since 1970: of connects
	// with the same time the last published is the newest. 0: unknown, as in grants of
	// earlier releases.
	Published int64 `bson:"published,omitempty"`
	// Version grows by one with every token set.
	Version int64 `bson:"version"`
	// Rev grows by one with every write of the document.
	Rev int64 `bson:"rev"`

	// Sealed is the token set, bound to user, broker, id and version.
	Sealed envelope.Blob `bson:"sealed"`
	// Chain lists the refresh tokens of the grant. Nil: an earlier release wrote the
	// document.
	Chain *Chain `bson:"chain,omitempty"`
	// Fingerprints are those of the chain, for an index. Every write derives them.
	Fingerprints []string `bson:"fingerprints,omitempty"`
	// Split counts how often the accounts of the grant were split off from another. Of
	// grants that have an account since the same time, the one that was split off more
	// often keeps it.
	Split int `bson:"split,omitempty"`
	// HasSeparateRefreshTokens: the token set contains refresh tokens of single accounts, which are to be
	// split off.
	HasSeparateRefreshTokens bool `bson:"apart,omitempty"`
	// HasLeftovers: the token set contains texts that are to become dead letters.
	HasLeftovers bool `bson:"left,omitempty"`
	// Doubtful counts the answers that were kept since the last good one though a
	// gateway may have written them.
	Doubtful int `bson:"doubtful,omitempty"`
	// Access and Refresh are the lifetimes of the two tokens; nil: there is no such token.
	Access  *Lifetime `bson:"access,omitempty"`
	Refresh *Lifetime `bson:"refresh,omitempty"`
	// OlderAccess are the lifetimes of the access tokens of accounts that later answers did
	// not cover; see AccessOf.
	OlderAccess []Lifetime `bson:"earlier,omitempty"`
	// AccountsDue is when something is due for single accounts: announcing the end of
	// an access token in OlderAccess, or splitting off accounts. Nil: nothing is.
	AccountsDue *time.Time `bson:"accountsDue,omitempty"`

	// Due is the next action; nil: none.
	Due *Due `bson:"due,omitempty"`
	// Attempts counts failed refreshes since the last that succeeded.
	Attempts int `bson:"tries"`
	// Deferrals counts postponements (rate limits, refused credentials) since then.
	Deferrals int `bson:"waits"`
	// Unknown is since when the outcome of a refresh call is unknown: Mesh may have
	// replaced the refresh token by one that never arrived.
	Unknown *time.Time `bson:"unknown,omitempty"`
	// SendAccess: refreshes send the access token along, since one without it was
	// refused as a bad request; until one with it is refused so.
	SendAccess bool `bson:"sendAccess,omitempty"`
	// MFA is set while a refresh waits for a code of the user.
	MFA *MFA `bson:"mfa,omitempty"`
	// Failing describes the failures since the last successful refresh; nil: there were
	// none, or an earlier release counted them.
	Failing *Failing `bson:"failing,omitempty"`
	// RefusedReport is the last report of a refused access token that counted.
	RefusedReport *RefusedReport `bson:"refused,omitempty"`
	// Refusals are the refusals of the refresh token since the last successful refresh;
	// nil: none.
	Refusals *Refusals `bson:"refusals,omitempty"`
	// Warned is the reason of the last token.expiring of this version.
	Warned events.Reason `bson:"warned,omitempty"`

	// UsedIn is the last version whose access tokens were requested.
	UsedIn int64 `bson:"usedIn,omitempty"`

	// Lease is the right of one worker to refresh the grant.
	Lease *Lease `bson:"lease,omitempty"`
	// Epoch grows by one with every lease: the fencing token.
	Epoch int64 `bson:"epoch"`
	// Applied is the newest epoch whose answer is in the token set.
	Applied int64 `bson:"applied"`

	// Outbox is what is still to be sent to NATS.
	Outbox *Outbox `bson:"outbox,omitempty"`
	// Removal is what is still to be done at Mesh for a revoked grant.
	Removal *Removal `bson:"removal,omitempty"`
	// PurgeAt is when the record of an expired grant may be deleted.
	PurgeAt *time.Time `bson:"purgeAt,omitempty"`
}

// Account is one account of a grant.
type Account struct {
	ID   string `bson:"id"`
	Name string `bson:"name"`
	// ExpiresAt is the end of this account's access token. Nil: unknown.
	ExpiresAt *time.Time `bson:"expiresAt,omitempty"`
	// ConnectedAt is when the user gave this account, if not with the grant; see
	// Grant.ConnectedSince.
	ConnectedAt *time.Time `bson:"connectedAt,omitempty"`
}

// Lifetime says when a token was obtained, and when it ends.
type Lifetime struct {
	// Since is when the token was obtained.
	Since time.Time `bson:"since"`
	// Version is the version of the grant that brought an access token: not every
	// version does. 0: an earlier release wrote the lifetime; see Grant.Current.
	Version int64 `bson:"version,omitempty"`
	// ExpiresAt is the end. Nil: none, or unknown.
	ExpiresAt *time.Time `bson:"expiresAt,omitempty"`
	// Assumed: ExpiresAt is derived from the former token. It serves to act in time,
	// never to declare a token dead.
	Assumed bool `bson:"assumed,omitempty"`
	// RequestedAt is when a refresh requested a new token and got none.
	RequestedAt *time.Time `bson:"asked,omitempty"`
	// Warned: the end was announced ahead of time; only of refresh tokens, and of access
	// tokens in Grant.OlderAccess or announced like these.
	Warned bool `bson:"warned,omitempty"`
	// EndAnnounced: the end was announced though the grant has not ended; only of access
	// tokens.
	EndAnnounced bool `bson:"told,omitempty"`
}

// Expired reports whether the lifetime has ended at now. A nil lifetime has.
func (l *Lifetime) Expired(now time.Time) bool {
	return l == nil || l.ExpiresAt != nil && !now.Before(*l.ExpiresAt)
}

// ServedUntil is until when a token is handed out: ahead of its end by as much as clocks
// may differ, but by no more than a tenth of its lifetime. Nil: the end is unknown.
func (l *Lifetime) ServedUntil(skew time.Duration) *time.Time {
	if l == nil || l.ExpiresAt == nil {
		return nil
	}
	at := l.ExpiresAt.Add(-l.AtMostTenth(skew))
	return &at
}

// AtMostTenth bounds a time ahead of the end of a lifetime by a tenth of that lifetime.
func (l *Lifetime) AtMostTenth(ahead time.Duration) time.Duration {
	if l == nil || l.ExpiresAt == nil {
		return 0
	}
	return min(ahead, max(l.ExpiresAt.Sub(l.Since), 0)/10)
}

// MFA is a refresh for which the institution demands a code. The interim access token
// that completes it is in the token set.
type MFA struct {
	// Until is when the interim access token ends, or is assumed to end.
	Until time.Time `bson:"until"`
	// Refused counts codes that were refused.
	Refused int `bson:"refused,omitempty"`
}

// Action is what is due for a grant.
type Action string

const (
	// Refresh renews the access token.
	Refresh Action = "refresh"
	// Renew refreshes and requests a new refresh token.
	Renew Action = "renew"
	// Warn announces the end of a token that can't be renewed.
	Warn Action = "warn"
	// Expire announces that the grant has ended.
	Expire Action = "expire"
)

// Due is a grant's next action.
type Due struct {
	At     time.Time `bson:"at"`
	Action Action    `bson:"action"`
	// Stream is the identity of the stream that holds the schedule; empty: none does.
	Stream string `bson:"stream"`
	// Reschedules counts how often the overdue schedule was made again, RescheduledAt is when last.
	Reschedules   int       `bson:"pokes,omitempty"`
	RescheduledAt time.Time `bson:"pokedAt,omitempty"`
	// Trace is the trace of the decision.
	Trace tracing.TraceContext `bson:"trace,omitempty"`
}

// Lease is the right of one worker to refresh a grant.
type Lease struct {
	// Owner is unique to the acquisition, not only to the worker.
	Owner string    `bson:"owner"`
	Until time.Time `bson:"until"`
}

// Outbox is what a change has to send to NATS. It is written with the change and
// cleared when NATS has acknowledged all of it.
type Outbox struct {
	Since  time.Time     `bson:"since"`
	Events []OutboxEvent `bson:"events,omitempty"`
	// Schedule: the schedule of the grant has to be made, replaced or removed.
	Schedule bool `bson:"schedule,omitempty"`
}

// OutboxEvent is an encoded lifecycle event.
type OutboxEvent struct {
	ID      string `bson:"id"`
	Subject string `bson:"subject"`
	Data    []byte `bson:"data"`
	// Trace is the trace of the change.
	Trace tracing.TraceContext `bson:"trace,omitempty"`
}

// Failing is a series of failed refreshes. Its texts are for programs.
type Failing struct {
	// Since is when the first failed, At when the last did.
	Since time.Time `bson:"since"`
	At    time.Time `bson:"at"`
	// Why is the verdict on the last: transient, rate_limited, must_act, dead,
	// bad_request, denied or unlawful.
	Why string `bson:"why"`
	// Detail lists the HTTP status and the statuses in the last answer.
	Detail string `bson:"detail,omitempty"`
	// Type and Hash are its errorType and errorHash; empty unless they are words of up
	// to 64 letters, digits, "_" and "-".
	Type string `bson:"type,omitempty"`
	Hash string `bson:"hash,omitempty"`
}

// Refusals are consecutive refusals of a refresh token. They count only with a pause
// between them.
type Refusals struct {
	// At is the time of the first.
	At time.Time `bson:"at"`
	// Times counts them.
	Times int `bson:"times"`
	// Next is when another one begins to count.
	Next time.Time `bson:"next"`
	// Changed: SendAccess was changed meanwhile.
	Changed bool `bson:"changed,omitempty"`
}

// RefusedReport is a caller's report that an institution refused the access tokens of a
// version, which caused a refresh.
type RefusedReport struct {
	Version int64     `bson:"version"`
	At      time.Time `bson:"at"`
}

// Valid reports whether the lease has not run out at now.
func (l *Lease) Valid(now time.Time) bool { return l != nil && now.Before(l.Until) }

// Binding is what the token set of the present version is sealed to.
func (g *Grant) Binding() envelope.Binding {
	return envelope.Binding{
		Purpose: envelope.PurposeTokenSet,
		User:    g.UserID, Broker: g.BrokerType, Grant: g.ID, Version: g.Version,
	}
}

// Lifecycle returns the data of an event about the grant.
func (g *Grant) Lifecycle(reason events.Reason) events.Lifecycle {
	return g.LifecycleOf(g.Accounts, reason)
}

// LifecycleOf is Lifecycle for an event about some of the accounts.
func (g *Grant) LifecycleOf(accounts []Account, reason events.Reason) events.Lifecycle {
	data := events.Lifecycle{
		UserID: g.UserID, GrantID: g.ID, BrokerType: g.BrokerType, BrokerName: g.BrokerName,
		Accounts: make([]events.Account, len(accounts)), Version: g.Version, Reason: reason, Labels: g.Labels,
	}
	for i, a := range accounts {
		data.Accounts[i] = events.Account{AccountID: a.ID, AccountName: a.Name}
	}
	if g.Failing != nil && explainedReasons[reason] {
		data.ErrorType, data.ErrorHash = g.Failing.Type, g.Failing.Hash
	}
	if g.Access != nil {
		data.ExpiresAt = g.Access.ExpiresAt
	}
	if g.Refresh != nil {
		data.RefreshTokenExpiresAt = g.Refresh.ExpiresAt
	}
	return data
}

// explainedReasons are the reasons that the last error explains.
var explainedReasons = map[events.Reason]bool{
	events.ReasonRejected: true, events.ReasonNotFound: true, events.ReasonBadRequest: true, events.ReasonMFARequired: true,
	events.ReasonOutcomeLost: true, events.ReasonLegal: true, events.ReasonRefreshFailing: true,
}

// Idle reports whether nobody requested the access tokens of the version before the
// present one. A grant that was just connected is not idle.
func (g *Grant) Idle() bool { return g.Version > 1 && g.UsedIn < g.Version-1 }

// AccountIDs returns the ids of the accounts; none while they are unknown.
func (g *Grant) AccountIDs() []string {
	ids := make([]string, len(g.Accounts))
	for i, a := range g.Accounts {
		ids[i] = a.ID
	}
	return ids
}

// ConnectedSince returns when the user gave an account of the grant.
func (g *Grant) ConnectedSince(accountID string) time.Time {
	if a := g.Account(accountID); a != nil && a.ConnectedAt != nil {
		return *a.ConnectedAt
	}
	return g.ConnectedAt
}

// Account returns the account with this id, or nil.
func (g *Grant) Account(id string) *Account {
	if i := slices.IndexFunc(g.Accounts, func(a Account) bool { return a.ID == id }); i >= 0 {
		return &g.Accounts[i]
	}
	return nil
}

// Clone returns a copy that shares nothing that callers change in place.
func (g *Grant) Clone() *Grant {
	c := *g
	c.Accounts, c.OlderAccess = slices.Clone(g.Accounts), slices.Clone(g.OlderAccess)
	c.Access, c.Refresh = clonePtr(g.Access), clonePtr(g.Refresh)
	c.Due, c.Lease, c.Removal, c.MFA = clonePtr(g.Due), clonePtr(g.Lease), clonePtr(g.Removal), clonePtr(g.MFA)
	c.Failing, c.RefusedReport, c.Refusals = clonePtr(g.Failing), clonePtr(g.RefusedReport), clonePtr(g.Refusals)
	if g.Outbox != nil {
		c.Outbox = clonePtr(g.Outbox)
		c.Outbox.Events = slices.Clone(g.Outbox.Events)
	}
	return &c
}

func clonePtr[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

// Milli returns a time as it is stored: UTC, in milliseconds.
func Milli(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }
