// Package refresher renews grants: a refresh from the lease to the event, when it is
// due, what its outcome means, and the reconciliation that repairs whatever was left
// undone.
package refresher

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/options"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
	"github.com/latchkey/latchkey/store/envelope"
)

// Options for New. Audit, Workers and what bounds nothing while it is zero may be left out.
type Options struct {
	Store        *store.Store
	Envelope     *envelope.Envelope
	Fingerprints *store.Fingerprints
	JetStream    jetstream.JetStream
	Mesh         *Mesh
	// Limits and Credentials bound when refreshes may start, Concurrency how
	// many run at once. Three times as many may wait for limits of their broker.
	Limits      config.Limits
	Credentials config.Backoff
	Concurrency int
	// Workers returns how many workers share the limits (Membership.Workers); nil: this one is
	// alone.
	Workers    func() int
	Hold       config.Hold // when verdicts at a broker are held
	Settler    Settler
	Dispatcher *Dispatcher
	Subjects   events.Subjects
	// WorkerID begins the owner of every lease; NewID makes the rest.
	WorkerID string
	NewID    func() string
	Now      func() time.Time
	// Lease is how long a lease lasts; CallAndSave what a call and the save of its answer may
	// take, for which it must last; ClockSkew what clocks may differ by.
	Lease, CallAndSave, ClockSkew time.Duration
	// RefusedPause is how long after a report of a refused access token the next one
	// of the same grant counts.
	RefusedPause time.Duration
	// Remember is how long the refresh token of a deleted grant is remembered as spent.
	Remember time.Duration
	// SendAccess lists the broker types whose refresh needs the access token.
	SendAccess []string
	// Resolve sorts out the grants of a user after a refresh has changed accounts.
	Resolve func(ctx context.Context, userID string) error
	// ParkAnswer makes a dead letter of what an answer left; nil: NATS has it.
	ParkAnswer func(ctx context.Context, g *store.Grant, id string, body []byte) error
	Audit      *audit.Log // nil: no audit log
	Log        *zap.Logger
	Metrics    prometheus.Registerer
}

// Refresher refreshes grants. It is safe for concurrent use.
type Refresher struct {
	deps     Options
	queue    *Queue
	metrics  *metrics
	verdicts *verdicts
	// underWay counts refreshes from waiting for their turn until their answers are kept.
	underWay sync.WaitGroup
}

// New returns a Refresher.
func New(o Options) (*Refresher, error) {
	err := options.Require("a refresher", o, "Store", "Envelope", "Fingerprints", "JetStream", "Mesh", "Settler", "Dispatcher", "WorkerID", "NewID", "Now",
		"Limits", "Credentials", "Concurrency", "Lease", "CallAndSave", "Resolve", "ParkAnswer", "Log", "Metrics")
	if err != nil {
		return nil, err
	}
	r := &Refresher{deps: o, metrics: newMetrics(o.Metrics)}
	r.verdicts = &verdicts{store: o.Store, hold: o.Hold, now: o.Now, log: o.Log, metrics: r.metrics}
	limits, err := NewLimits(LimitsOptions{Config: o.Limits, Credentials: o.Credentials, Now: o.Now, Workers: o.Workers, OnBreaker: r.metrics.onBreaker})
	if err != nil {
		return nil, err
	}
	r.queue, err = NewQueue(QueueOptions{Limits: limits, Slots: o.Concurrency, Room: 3 * o.Concurrency, Now: o.Now})
	return r, err
}

// Stop rejects the refreshes that wait for their turn, and all that come later.
// Refreshes that have begun continue; Wait waits for them.
func (r *Refresher) Stop() { r.queue.Close() }

// Wait returns when, after Stop, the answer of every call is kept.
func (r *Refresher) Wait() { r.underWay.Wait() }

// HandleDue handles a refresh.due message. After nil the caller acknowledges it: all is done, or it
// is out of date. A *LaterError or *store.LeasedError says when to retry. After any other
// error no token was spent, or the answer is on its way into the database.
func (r *Refresher) HandleDue(ctx context.Context, m events.RefreshDue) error {
	r.underWay.Add(1)
	defer r.underWay.Done()
	err := r.due(ctx, m)
	if errors.Is(err, store.ErrStale) {
		err = r.reschedule(ctx, m)
	}
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

func (r *Refresher) due(ctx context.Context, m events.RefreshDue) error {
	urgency := Urgency{Unknown: m.Unknown, Idle: m.Idle, ExpiresAt: m.ExpiresAt}
	done, ok := r.queue.Try(m.BrokerType, urgency)
	var refused error
	if !ok && m.Call && r.queue.Crowded(m.BrokerType) {
		done, refused = r.queue.Enter(ctx, m.BrokerType, urgency)
		ok = refused == nil
	}
	if ok {
		if _, refused = r.refresh(ctx, m, "", demand{dueAt: &m.DueAt}, done); !errors.Is(refused, envelope.ErrKMS) {
			return refused
		}
		done = nil
	}
	// Only a call has to wait: for its turn, or for KMS. A message that announces a call waits
	// for a slot, and else the grant is read: it may have changed since.
	g, err := r.deps.Store.Get(ctx, m.GrantID)
	if err != nil {
		return err
	}
	if !matches(g, m) {
		return store.ErrStale
	}
	if NeedsCall(g, r.deps.Now()) {
		if refused != nil {
			return r.inTime(g, refused)
		}
		if done, err = r.queue.Enter(ctx, m.BrokerType, urgency); err != nil {
			return r.inTime(g, err)
		}
	}
	_, err = r.refresh(ctx, m, "", demand{dueAt: &m.DueAt}, done)
	return err
}

// inTime adds a grant's last try to a *LaterError, in a copy: callers may share the error.
func (r *Refresher) inTime(g *store.Grant, err error) error {
	var later *LaterError
	last := r.deps.Settler.Policy.LatestAttempt(g)
	if last == nil || !errors.As(err, &later) {
		return err
	}
	return &LaterError{After: later.After, Why: later.Why, LatestAttempt: *last}
}

// RefreshNow refreshes a grant of this version before it is due. It returns the grant as
// stored afterwards, refreshed or not. The errors are those of HandleDue and store.Acquire.
func (r *Refresher) RefreshNow(ctx context.Context, g *store.Grant) (*store.Grant, error) {
	return r.onDemand(ctx, g, demand{})
}

type demand struct {
	dueAt   *time.Time           // the due time that has come; nil: on request
	refused *store.RefusedReport // the report of a refused access token; nil: there is none
}

func (r *Refresher) onDemand(ctx context.Context, g *store.Grant, d demand) (*store.Grant, error) {
	r.underWay.Add(1)
	defer r.underWay.Done()
	var done func(*Failure)
	if NeedsCall(g, r.deps.Now()) {
		var err error
		if done, err = r.queue.Enter(ctx, g.BrokerType, Urgency{}); err != nil { // a caller waits: the most urgent
			return nil, err
		}
	}
	return r.refresh(ctx, events.RefreshDue{GrantID: g.ID, BrokerType: g.BrokerType, Version: g.Version}, g.UserID, d, done)
}

// permit is the permission to make one call, from Queue.Enter.
type permit struct{ done func(*Failure) }

// end gives the permission back with the outcome of the call. Only the first counts.
func (p *permit) end(f *Failure) {
	if p.done != nil {
		p.done(f)
		p.done = nil
	}
}

// unused gives the permission back if no call was made.
func (p *permit) unused() { p.end(&Failure{Class: notSent, Detail: "no call was made"}) }

// refresh does everything between the permission and the event. The user may be
// empty: messages don't name users. Without done there is no permission to call:
// what was due needed none when the grant was read.
func (r *Refresher) refresh(ctx context.Context, m events.RefreshDue, user string, d demand, done func(*Failure)) (out *store.Grant, err error) {
	ctx, span := tracing.Start(ctx, "refresh", trace.SpanKindInternal, tracing.Grant(m.GrantID, m.BrokerType, m.Version)...)
	defer func() { endStep(span, err) }()
	mayCall, turn := done != nil, &permit{done}
	defer turn.unused()
	// What can fail without harm comes first: after the call the answer must be kept.
	var with store.TokenSealer
	if mayCall {
		if with, err = r.sealer(ctx, m.GrantID, user); err != nil {
			return nil, err
		}
	}
	now := r.deps.Now()
	g, takenOver, err := r.acquire(ctx, store.LeaseRequest{
		GrantID: m.GrantID, Version: m.Version, DueAt: d.dueAt, DueNow: mayCall && d.dueAt == nil,
		Report: d.refused, ReportsSince: now.Add(-r.deps.RefusedPause),
	})
	if err != nil {
		return nil, err
	}
	if d.dueAt != nil {
		r.metrics.lateness.WithLabelValues(r.metrics.broker(g.BrokerType)).Observe(max(now.Sub(*d.dueAt), 0).Seconds())
	}
	// Opening may have to wait for KMS; nothing may lie between the check of what
	// earlier leases brought and the call.
	var tokens store.TokenSet
	var opened error
	if mayCall {
		tokens, opened = r.Tokens(ctx, g)
	}
	current, ours, err := r.applyEarlierAnswers(ctx, g, takenOver)
	if err != nil || !ours {
		return current, err
	}
	g = current
	if !NeedsCall(g, r.deps.Now()) {
		next := g.Clone()
		if ended, err := r.withoutRefresh(ctx, next); err != nil {
			return nil, err
		} else if ended {
			turn.unused()
			next.Lease = nil
			return r.commitState(ctx, g, next)
		}
	}
	if !mayCall {
		return nil, r.postpone(ctx, g)
	}
	if opened != nil {
		turn.unused()
		return r.storeUnreadable(ctx, g, opened)
	}
	return r.call(ctx, g, tokens, secret.Text{}, with, turn)
}

// withoutRefresh is Settler.WithoutRefresh, except that no grant expires for a refusal
// while verdicts are held at its broker: one that was given up before is tried again.
func (r *Refresher) withoutRefresh(ctx context.Context, next *store.Grant) (done bool, err error) {
	if !GivenUp(next) || !refusal(next.Reason) || RefreshTokenExpired(next, r.deps.Now()) {
		return r.deps.Settler.WithoutRefresh(next)
	}
	before := next.Clone()
	done, err = r.deps.Settler.WithoutRefresh(next)
	if err == nil && next.State == store.Expired && r.verdicts.heldAt(ctx, next.BrokerType) {
		*next = *before
		Revive(next, r.deps.Now())
	}
	return done, err
}

// acquire takes the lease of a grant. Where an earlier lease ran out (takenOver) the
// outcome of its refresh is unknown.
func (r *Refresher) acquire(ctx context.Context, l store.LeaseRequest) (g *store.Grant, takenOver bool, err error) {
	now := r.deps.Now()
	l.Owner, l.Now, l.Until = r.deps.WorkerID+"/"+r.deps.NewID(), now.Add(-r.deps.ClockSkew), now.Add(r.deps.Lease)
	g, takenOver, err = r.deps.Store.Acquire(ctx, l)
	if err == nil && takenOver {
		r.metrics.takenOver.Inc()
		if g.Unknown == nil {
			g.Unknown = new(store.Milli(now))
		}
	}
	return g, takenOver, err
}

// record adds an audit record of what was done with a grant's tokens. It never waits: an
// answer of Mesh must not be delayed.
func (r *Refresher) record(action audit.Action, outcome string, g *store.Grant) {
	r.deps.Audit.Add(g.AuditRecord(action, outcome, g.AccountIDs()))
}

// sealer returns what a grant's answer will be sealed with. The user may be empty.
func (r *Refresher) sealer(ctx context.Context, grantID, user string) (store.TokenSealer, error) {
	if user == "" && r.deps.Envelope.ByUser() {
		g, err := r.deps.Store.Get(ctx, grantID)
		if err != nil {
			return store.TokenSealer{}, err
		}
		user = g.UserID
	}
	return r.deps.Fingerprints.Sealer(ctx, user)
}

// Tokens opens a grant's token set.
func (r *Refresher) Tokens(ctx context.Context, g *store.Grant) (store.TokenSet, error) {
	return store.OpenTokens(ctx, r.deps.Envelope, g.Sealed, g.Binding())
}

// Access opens a grant's access tokens; see [store.OpenAccess].
func (r *Refresher) Access(ctx context.Context, g *store.Grant) (*store.Grant, *store.AccessTexts, error) {
	return store.OpenAccess(ctx, r.deps.Envelope, g)
}

// SuspendedFor returns how long no refresh may start at a broker, whatever the
// grant; 0: one may start, or wait for its turn.
func (r *Refresher) SuspendedFor(broker string) time.Duration {
	return r.queue.limits.SuspendedFor(broker)
}

// HasDataKey reports whether Tokens and Access would not have to wait for anything.
func (r *Refresher) HasDataKey(g *store.Grant) bool { return r.deps.Envelope.Cached(g.Sealed.KeyID) }
