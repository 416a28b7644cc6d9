// Package store keeps grants in MongoDB, which holds the truth: schedules and
// events are derived from it and can be made again.
//
// One grant is one document. Every change replaces the whole document under
// the condition that its revision is still the one that was read, so that no
// writer ever overwrites what it has not seen; a single document is all that
// any change needs to be atomic.
package store

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"slices"
	"strings"
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
	// MustAct grants wait for their user; their access token is served until
	// it ends.
	MustAct State = "must_act"
	// Expired grants are dead: only a new connect revives them.
	Expired State = "expired"
	// Revoked grants have lost their tokens, but for what a removal at Mesh takes;
	// the record goes as soon as that has ended and its last event is sent.
	Revoked State = "revoked"
)

// Grant is what one refresh renews: a user's accounts at one broker that share
// a refresh token, or one account alone. Times have millisecond precision.
type Grant struct {
	ID         string        `bson:"_id"`
	UserID     string        `bson:"user"`
	BrokerType string        `bson:"broker"`
	BrokerName string        `bson:"brokerName"`
	Accounts   []Account     `bson:"accounts"`
	State      State         `bson:"state"`
	Reason     events.Reason `bson:"reason,omitempty"`

	// Labels are the publisher's own. They are replaced as a whole.
	Labels map[string]string `bson:"labels,omitempty"`

	// ConnectedAt is when the user gave this grant. The newest connect wins.
	ConnectedAt time.Time `bson:"connectedAt"`
	// Published is when NATS took the connect in, in nanoseconds since 1970: of connects
	// of one time the one that was published last is the newest. 0: not known, as for
	// grants of earlier releases.
	Published int64 `bson:"published,omitempty"`
	// Version grows by one with every token set.
	Version int64 `bson:"version"`
	// Rev grows by one with every write of the document.
	Rev int64 `bson:"rev"`

	// Sealed is the token set, bound to user, broker, id and version.
	Sealed envelope.Blob `bson:"sealed"`
	// Chain names the refresh tokens that the grant has had. Nil: an earlier
	// release wrote the document.
	Chain *Chain `bson:"chain,omitempty"`
	// Fingerprints are those of the chain, by which grants are looked for. Every write
	// derives them.
	Fingerprints []string `bson:"fingerprints,omitempty"`
	// Split is how often the accounts of the grant were split off from another. Of
	// grants that have an account since the same time, the one with more has it.
	Split int `bson:"split,omitempty"`
	// Apart: the token set holds refresh tokens of single accounts, which are to be
	// split off.
	Apart bool `bson:"apart,omitempty"`
	// Left: the token set holds what is to become a dead letter.
	Left bool `bson:"left,omitempty"`
	// Doubtful counts the answers since the last good one that were kept though they
	// may be pages of a gateway.
	Doubtful int `bson:"doubtful,omitempty"`
	// Access and Refresh tell the lives of the two tokens; nil where the grant
	// has no such token.
	Access  *Life `bson:"access,omitempty"`
	Refresh *Life `bson:"refresh,omitempty"`
	// Earlier are the lives of the access tokens that accounts have kept since
	// later answers did not cover them; see AccessOf.
	Earlier []Life `bson:"earlier,omitempty"`
	// AccountsDue is when something is to be done about single accounts: the end of
	// an access token in Earlier to be told, or accounts to be made a grant of their
	// own. Nil: nothing is.
	AccountsDue *time.Time `bson:"accountsDue,omitempty"`

	// Due is the next action. Nil: there is none.
	Due *Due `bson:"due,omitempty"`
	// Tries counts failed refreshes since the last that succeeded.
	Tries int `bson:"tries"`
	// Waits counts postponements (rate limits, refused credentials) likewise.
	Waits int `bson:"waits"`
	// Unknown is since when the outcome of a refresh call is unknown: the
	// refresh token at hand may have been replaced by one that we never got.
	Unknown *time.Time `bson:"unknown,omitempty"`
	// SendAccess: a refresh without the access token was refused as a bad
	// request, so the access token goes along until one with it is refused so.
	SendAccess bool `bson:"sendAccess,omitempty"`
	// MFA is set while a refresh waits for a code of the user.
	MFA *MFA `bson:"mfa,omitempty"`
	// Failing tells of the failures since the last refresh that succeeded; nil: there
	// were none, or an earlier release counted them.
	Failing *Failing `bson:"failing,omitempty"`
	// Refused is the last report of a refused access token that has counted.
	Refused *Refused `bson:"refused,omitempty"`
	// Refusals is the row of refusals that the refresh token met with since the last
	// refresh that succeeded; nil: none.
	Refusals *Refusals `bson:"refusals,omitempty"`
	// Warned is the reason of the last token.expiring of this version.
	Warned events.Reason `bson:"warned,omitempty"`

	// UsedIn is the last version whose access tokens were asked for.
	UsedIn int64 `bson:"usedIn,omitempty"`

	// Lease is the right of one worker to refresh the grant.
	Lease *Lease `bson:"lease,omitempty"`
	// Epoch grows by one with every lease: the fencing token.
	Epoch int64 `bson:"epoch"`
	// Applied is the newest epoch whose answer is in the present token set.
	Applied int64 `bson:"applied"`

	// Outbox holds what is still to be sent to NATS about this document.
	Outbox *Outbox `bson:"outbox,omitempty"`
	// Removal, of a revoked grant, is what is still to be done at Mesh.
	Removal *Removal `bson:"removal,omitempty"`
	// PurgeAt is when the record of an expired grant may go.
	PurgeAt *time.Time `bson:"purgeAt,omitempty"`
}

// Account is one account of a grant.
type Account struct {
	ID   string `bson:"id"`
	Name string `bson:"name"`
	// ExpiresAt is the end of this account's access token. Nil: none known.
	ExpiresAt *time.Time `bson:"expiresAt,omitempty"`
	// ConnectedAt is when the user gave this account, where that was at another
	// time than the grant. See Grant.Given.
	ConnectedAt *time.Time `bson:"connectedAt,omitempty"`
}

// Life is the life of a token.
type Life struct {
	// Since is when the token was obtained.
	Since time.Time `bson:"since"`
	// Version is that of the grant in which an access token came: a version may bring
	// none. 0: an earlier release wrote it; see Grant.Current.
	Version int64 `bson:"version,omitempty"`
	// ExpiresAt is its end. Nil: it has none, or none is known.
	ExpiresAt *time.Time `bson:"expiresAt,omitempty"`
	// Assumed: ExpiresAt is not stated but taken from the token before this one.
	// It serves to act in time, never to declare a token dead.
	Assumed bool `bson:"assumed,omitempty"`
	// Asked is when a refresh asked for a new token and got none.
	Asked *time.Time `bson:"asked,omitempty"`
	// Warned: the end was announced ahead of time; refresh tokens, and access tokens
	// in Grant.Earlier or to be told of like these.
	Warned bool `bson:"warned,omitempty"`
	// Told: that it has ended was announced, though the grant has not ended; access
	// tokens only.
	Told bool `bson:"told,omitempty"`
}

// Over reports whether the token's life has ended at now. A missing token
// counts as ended.
func (l *Life) Over(now time.Time) bool {
	return l == nil || l.ExpiresAt != nil && !now.Before(*l.ExpiresAt)
}

// ServedUntil is when a token is handed out for the last time, since it may then
// have ended by the clock of somebody else: ahead of its end by as long as clocks
// may differ, but by no more than a tenth of its life. Nil: its end is not known.
func (l *Life) ServedUntil(skew time.Duration) *time.Time {
	if l == nil || l.ExpiresAt == nil {
		return nil
	}
	at := l.ExpiresAt.Add(-l.Tenth(skew))
	return &at
}

// Tenth is a time ahead of the end of a life, but no more than a tenth of it.
func (l *Life) Tenth(ahead time.Duration) time.Duration {
	if l == nil || l.ExpiresAt == nil {
		return 0
	}
	return min(ahead, max(l.ExpiresAt.Sub(l.Since), 0)/10)
}

// MFA is a refresh that the institution has answered with a demand for a code. The
// interim access token that completes it is in the token set.
type MFA struct {
	// Until is when the interim access token ends, or is taken to have ended.
	Until time.Time `bson:"until"`
	// Refused counts codes that were not taken.
	Refused int `bson:"refused,omitempty"`
}

// Action is what is to be done with a grant at its due time.
type Action string

const (
	// Refresh renews the access token.
	Refresh Action = "refresh"
	// Renew refreshes and asks for a new refresh token.
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
	// Stream identifies the stream that holds the schedule; empty while none
	// does. A stream that was made anew has another identity.
	Stream string `bson:"stream"`
	// Pokes and PokedAt tell how often an overdue schedule was made again.
	Pokes   int       `bson:"pokes,omitempty"`
	PokedAt time.Time `bson:"pokedAt,omitempty"`
	// Trace is the trace in which the action was decided on.
	Trace tracing.Carried `bson:"trace,omitempty"`
}

// Lease is the right of one worker to refresh a grant.
type Lease struct {
	// Owner is unique to the acquisition, not only to the worker.
	Owner string    `bson:"owner"`
	Until time.Time `bson:"until"`
}

// Outbox is what a change still has to tell NATS. It is written with the
// change and cleared when NATS has acknowledged all of it.
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
	// Trace is the trace in which it came about.
	Trace tracing.Carried `bson:"trace,omitempty"`
}

// Failing is a series of refreshes that failed. It holds words for programs only.
type Failing struct {
	// Since is when the first of them did, At when the last did.
	Since time.Time `bson:"since"`
	At    time.Time `bson:"at"`
	// Why is what was made of the last: transient, rate_limited, must_act, dead,
	// bad_request, denied or unlawful.
	Why string `bson:"why"`
	// Detail names the HTTP status and the statuses in the last answer.
	Detail string `bson:"detail,omitempty"`
	// Type and Hash are its errorType and errorHash; empty where they are no words
	// of up to 64 letters, digits, "_" and "-".
	Type string `bson:"type,omitempty"`
	Hash string `bson:"hash,omitempty"`
}

// Refusals is a row of refusals of a refresh token. They count only with a pause
// between them.
type Refusals struct {
	// At is when the first came.
	At time.Time `bson:"at"`
	// Times is how many count.
	Times int `bson:"times"`
	// Next is from when on another one counts.
	Next time.Time `bson:"next"`
	// Changed: SendAccess was changed in it.
	Changed bool `bson:"changed,omitempty"`
}

// Refused is a caller's report that the access tokens of a version were refused
// where they were used, for which the grant was refreshed.
type Refused struct {
	Version int64     `bson:"version"`
	At      time.Time `bson:"at"`
}

// Live reports whether somebody else may hold the lease at now.
func (l *Lease) Live(now time.Time) bool { return l != nil && now.Before(l.Until) }

// Binding is what the grant's token set of the present version is sealed to.
func (g *Grant) Binding() envelope.Binding {
	return envelope.Binding{
		Purpose: envelope.PurposeTokenSet,
		User:    g.UserID, Broker: g.BrokerType, Grant: g.ID, Version: g.Version,
	}
}

// Lifecycle returns the data of an event about the grant as it now is.
func (g *Grant) Lifecycle(reason events.Reason) events.Lifecycle {
	return g.LifecycleOf(g.Accounts, reason)
}

// LifecycleOf is Lifecycle for an event that is true of some accounts only.
func (g *Grant) LifecycleOf(accounts []Account, reason events.Reason) events.Lifecycle {
	data := events.Lifecycle{
		UserID: g.UserID, GrantID: g.ID, BrokerType: g.BrokerType, BrokerName: g.BrokerName,
		Accounts: make([]events.Account, len(accounts)), Version: g.Version, Reason: reason, Labels: g.Labels,
	}
	for i, a := range accounts {
		data.Accounts[i] = events.Account{AccountID: a.ID, AccountName: a.Name}
	}
	if g.Failing != nil && explained[reason] {
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

// explained are the reasons that the last error explains.
var explained = map[events.Reason]bool{
	events.ReasonRejected: true, events.ReasonNotFound: true, events.ReasonBadRequest: true, events.ReasonMFARequired: true,
	events.ReasonOutcomeLost: true, events.ReasonLegal: true, events.ReasonRefreshFailing: true,
}

// Idle reports whether nobody has asked for the access tokens of the version
// before the present one. A grant that was just connected is not idle.
func (g *Grant) Idle() bool { return g.Version > 1 && g.UsedIn < g.Version-1 }

// AccountIDs returns the ids of the accounts; none while they are not known.
func (g *Grant) AccountIDs() []string {
	ids := make([]string, len(g.Accounts))
	for i, a := range g.Accounts {
		ids[i] = a.ID
	}
	return ids
}

// Given returns when the user gave an account of the grant.
func (g *Grant) Given(accountID string) time.Time {
	if a := g.Account(accountID); a != nil && a.ConnectedAt != nil {
		return *a.ConnectedAt
	}
	return g.ConnectedAt
}

// Account returns the account with this id, or nil.
func (g *Grant) Account(id string) *Account {
	for i := range g.Accounts {
		if g.Accounts[i].ID == id {
			return &g.Accounts[i]
		}
	}
	return nil
}

// Clone returns a copy that shares nothing that callers change in place.
func (g *Grant) Clone() *Grant {
	c := *g
	c.Accounts, c.Earlier = slices.Clone(g.Accounts), slices.Clone(g.Earlier)
	c.Access, c.Refresh = clonePtr(g.Access), clonePtr(g.Refresh)
	c.Due, c.Lease, c.Removal, c.MFA = clonePtr(g.Due), clonePtr(g.Lease), clonePtr(g.Removal), clonePtr(g.MFA)
	c.Failing, c.Refused, c.Refusals = clonePtr(g.Failing), clonePtr(g.Refused), clonePtr(g.Refusals)
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

// GrantID derives the id of the grant of these accounts: the same accounts
// connected again give the same grant, in whatever case the broker type is
// written. It is opaque (a hash), since it stands in subjects that a broker may
// keep in the clear.
func GrantID(userID, brokerType string, accountIDs ...string) string {
	return FormerGrantID(userID, events.BrokerKey(brokerType), accountIDs...)
}

// FormerGrantID derives the id as earlier releases did: by the broker type as it
// is written.
func FormerGrantID(userID, brokerType string, accountIDs ...string) string {
	ids := slices.Clone(accountIDs)
	slices.Sort(ids)
	return hashID("accounts", append([]string{userID, brokerType}, ids...)...)
}

// GrantIDBeside derives the id of a grant whose accounts would give an id that another
// grant has, to which more accounts came later.
func GrantIDBeside(id string) string { return hashID("beside", id) }

// DelayedGrantID derives the id of a grant whose accounts are not known yet from the
// fingerprint of its refresh token: the same refresh token gives the same grant, and who
// knows the id can test no guess.
func DelayedGrantID(userID, brokerType, fingerprint string) string {
	return hashID("delayed by fingerprint", userID, events.BrokerKey(brokerType), fingerprint)
}

// FormerDelayedGrantID derives the id as earlier releases did: by the refresh token, and
// by the broker type as it was written or, later, by its key.
func FormerDelayedGrantID(userID, brokerType, refreshToken string) string {
	return hashID("delayed", userID, brokerType, refreshToken)
}

var idEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

func hashID(kind string, parts ...string) string {
	h := sha256.New()
	for _, p := range append([]string{"latchkey grant", kind}, parts...) {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(p)))
		h.Write(size[:])
		h.Write([]byte(p))
	}
	return strings.ToLower(idEncoding.EncodeToString(h.Sum(nil)[:20]))
}

// Milli brings a time to the form in which it is stored: UTC, milliseconds.
func Milli(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }
