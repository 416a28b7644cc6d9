// Package refresher renews grants: one refresh from the lease to the event,
// when it is due, how outcomes are sorted, and the reconciliation that makes
// good whatever was left undone.
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
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
	"github.com/latchkey/latchkey/store/envelope"
)

// Deps is what a Refresher works with.
type Deps struct {
	Store    *store.Store
	Envelope *envelope.Envelope
	// Fingerprints keep up the chains of grants.
	Fingerprints *store.Fingerprints
	JetStream    jetstream.JetStream
	Mesh         *Mesh
	// Limits and Credentials bound when refreshes may start, Concurrency how
	// many run at once. Three times as many may wait for limits of their broker.
	Limits      config.Limits
	Credentials config.Backoff
	Concurrency int
	// Hold says when verdicts at a broker are held.
	Hold       config.Hold
	Settler    Settler
	Dispatcher *Dispatcher
	Subjects   events.Subjects
	// WorkerID begins the owner of every lease; NewID makes the rest.
	WorkerID string
	NewID    func() string
	Now      func() time.Time
	// Lease is how long a lease lasts; CallAndSave what a call and the save of
	// its answer may take, for which it must last; ClockSkew what clocks may
	// differ by.
	Lease, CallAndSave, ClockSkew time.Duration
	// RefusedPause is how long after a report of a refused access token the next one
	// of the same grant counts.
	RefusedPause time.Duration
	// Remember is how long a refresh token is remembered as spent whose grant is gone.
	Remember time.Duration
	// SendAccess lists the broker types whose refresh needs the access token.
	SendAccess []string
	// Changed is told of a grant whose accounts a refresh has changed.
	Changed func(ctx context.Context, userID string) error
	// ParkAnswer makes a dead letter of what an answer about a grant left. It returns
	// nil when NATS has it.
	ParkAnswer func(ctx context.Context, g *store.Grant, id string, body []byte) error
	// Audit may be nil.
	Audit   *audit.Log
	Log     *zap.Logger
	Metrics prometheus.Registerer
}

// Refresher refreshes grants. It is safe for concurrent use.
type Refresher struct {
	store      *store.Store
	envelope   *envelope.Envelope
	prints     *store.Fingerprints
	js         jetstream.JetStream
	mesh       *Mesh
	queue      *Queue
	settler    Settler
	dispatcher *Dispatcher
	subjects   events.Subjects
	workerID   string
	newID      func() string
	now        func() time.Time
	lease      time.Duration
	reserve    time.Duration
	skew       time.Duration
	sendAccess map[string]bool
	// refusedPause is Deps.RefusedPause.
	refusedPause time.Duration
	remember     time.Duration
	changed      func(ctx context.Context, userID string) error
	parkAnswer   func(ctx context.Context, g *store.Grant, id string, body []byte) error
	audit        *audit.Log
	log          *zap.Logger
	metrics      *metrics
	verdicts     *verdicts
	// underWay counts refreshes from before they wait for their turn until
	// their answers are kept.
	underWay sync.WaitGroup
}

// New returns a Refresher.
func New(d Deps) *Refresher {
	r := &Refresher{
		store: d.Store, envelope: d.Envelope, prints: d.Fingerprints, js: d.JetStream, mesh: d.Mesh, settler: d.Settler,
		dispatcher: d.Dispatcher, subjects: d.Subjects, workerID: d.WorkerID, newID: d.NewID, now: d.Now,
		lease: d.Lease, reserve: d.CallAndSave, skew: d.ClockSkew, sendAccess: map[string]bool{}, refusedPause: d.RefusedPause, remember: d.Remember, changed: d.Changed, parkAnswer: d.ParkAnswer, audit: d.Audit, log: d.Log,
		metrics: newMetrics(d.Metrics),
	}
	r.verdicts = &verdicts{store: d.Store, hold: d.Hold, now: d.Now, log: d.Log, metrics: r.metrics, cleared: map[string]time.Time{}}
	r.queue = NewQueue(NewLimits(d.Limits, d.Credentials, d.Now, r.metrics.onBreaker), d.Concurrency, 3*d.Concurrency, d.Now)
	for _, broker := range d.SendAccess {
		r.sendAccess[events.BrokerKey(broker)] = true
	}
	return r
}

// Stop sends away the refreshes that wait for their turn, now and from now on.
// Those that have begun are finished; Wait waits for them.
func (r *Refresher) Stop() { r.queue.Close() }

// Wait returns when, after Stop, the answer of every call is kept.
func (r *Refresher) Wait() { r.underWay.Wait() }

// Due handles a refresh.due message, which the caller acknowledges when it
// returns nil: all is done, or the message is out of date. A *LaterError or
// *store.LeasedError tells when to come back; after any other error nothing was
// spent, or the answer is on its way into the database.
func (r *Refresher) Due(ctx context.Context, m events.RefreshDue) error {
	r.underWay.Add(1)
	defer r.underWay.Done()
	err := r.due(ctx, m)
	if errors.Is(err, store.ErrStale) {
		return r.reschedule(ctx, m)
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
	if ok {
		if _, refused = r.refresh(ctx, m, "", demand{dueAt: &m.DueAt}, done); !errors.Is(refused, envelope.ErrKMS) {
			return refused
		}
		done = nil
	}
	// Only a call has to wait: for its turn, or for KMS. The message does not tell
	// what has become of the grant since.
	g, err := r.store.Get(ctx, m.GrantID)
	if err != nil {
		return err
	}
	if !matches(g, m) {
		return store.ErrStale
	}
	if NeedsCall(g, r.now()) {
		if refused != nil {
			return refused
		}
		if done, err = r.queue.Enter(ctx, m.BrokerType, urgency); err != nil {
			return r.inTime(g, err)
		}
	}
	_, err = r.refresh(ctx, m, "", demand{dueAt: &m.DueAt}, done)
	return err
}

// inTime adds a grant's last try to an error that tells when to come back. Others
// may have got the same error.
func (r *Refresher) inTime(g *store.Grant, err error) error {
	var later *LaterError
	last := r.settler.Policy.LastTry(g)
	if last == nil || !errors.As(err, &later) {
		return err
	}
	return &LaterError{After: later.After, Why: later.Why, LastTry: *last}
}

// Now refreshes a grant of this version before it is due. It returns the grant
// as it then is, refreshed or not. The errors are those of Due, and those of
// store.Acquire.
func (r *Refresher) Now(ctx context.Context, g *store.Grant) (*store.Grant, error) {
	return r.onDemand(ctx, g, demand{})
}

// demand is why a grant is to be refreshed.
type demand struct {
	// dueAt is the due time that has come; nil: somebody wants it before.
	dueAt *time.Time
	// refused is the report of a refused access token that wants it.
	refused *store.Refused
}

func (r *Refresher) onDemand(ctx context.Context, g *store.Grant, d demand) (*store.Grant, error) {
	r.underWay.Add(1)
	defer r.underWay.Done()
	var done func(*Failure)
	if NeedsCall(g, r.now()) {
		var err error
		// Somebody is waiting for it: nothing is more urgent.
		if done, err = r.queue.Enter(ctx, g.BrokerType, Urgency{}); err != nil {
			return nil, err
		}
	}
	return r.refresh(ctx, events.RefreshDue{GrantID: g.ID, BrokerType: g.BrokerType, Version: g.Version}, g.UserID, d, done)
}

// refresh does everything between the permission and the event. The user may be
// empty: messages don't name users. Without done there is no permission to call:
// what is due needed none when it was looked at.
func (r *Refresher) refresh(ctx context.Context, m events.RefreshDue, user string, d demand, done func(*Failure)) (out *store.Grant, err error) {
	ctx, span := tracing.Start(ctx, "refresh", trace.SpanKindInternal, tracing.Grant(m.GrantID, m.BrokerType, m.Version)...)
	defer func() { endStep(span, err) }()
	// What can fail without harm comes first: from the call on, the answer
	// must be kept.
	idle := &Failure{Class: uncalled, Detail: "no call was made"}
	mayCall := done != nil
	if !mayCall {
		done = func(*Failure) {}
	}
	var with store.TokenSealer
	if mayCall {
		if with, err = r.sealer(ctx, m.GrantID, user); err != nil {
			done(idle)
			return nil, err
		}
	}
	now := r.now()
	g, takenOver, err := r.store.Acquire(ctx, store.LeaseRequest{
		GrantID: m.GrantID, Version: m.Version, DueAt: d.dueAt, Refused: d.refused, RefusedSince: now.Add(-r.refusedPause),
		Owner: r.workerID + "/" + r.newID(), Now: now.Add(-r.skew), Until: now.Add(r.lease), DueNow: mayCall && d.dueAt == nil,
	})
	if err != nil {
		done(idle)
		return nil, err
	}
	if d.dueAt != nil {
		r.metrics.lateness.Observe(max(now.Sub(*d.dueAt), 0).Seconds())
	}
	if takenOver {
		r.metrics.takenOver.Inc()
		if g.Unknown == nil {
			at := store.Milli(now)
			g.Unknown = &at
		}
	}
	// Opening may have to wait for KMS; nothing may lie between the look at what
	// earlier leases brought and the call.
	var tokens store.TokenSet
	var opened error
	if mayCall {
		tokens, opened = store.OpenTokens(ctx, r.envelope, g.Sealed, g.Binding())
	}
	if takenOver || g.Unknown != nil || g.Applied < g.Epoch-1 || r.unsorted(g) {
		current, ours, err := r.settleEarlier(ctx, g, takenOver)
		if err != nil || !ours {
			done(idle)
			return current, err
		}
		g = current
	}
	next := g.Clone()
	if ended, err := r.settler.WithoutRefresh(next); ended || err != nil {
		done(idle)
		if err != nil {
			return nil, err
		}
		next.Lease = nil
		return r.commitState(ctx, g, next)
	}
	if !mayCall {
		return nil, r.putOff(ctx, g)
	}
	if opened != nil {
		done(idle)
		return r.unopened(ctx, g, opened)
	}
	return r.call(ctx, g, tokens, secret.Text{}, with, done)
}

// sealer returns what a grant's answer will be sealed with. The user may be empty.
func (r *Refresher) sealer(ctx context.Context, grantID, user string) (store.TokenSealer, error) {
	if user == "" && r.envelope.ByUser() {
		g, err := r.store.Get(ctx, grantID)
		if err != nil {
			return store.TokenSealer{}, err
		}
		user = g.UserID
	}
	return r.prints.Sealer(ctx, user)
}

// call spends the refresh token. From here on nothing is given up for the
// sake of ctx: the answer is kept even while the process shuts down. A code completes
// a refresh that waits for it.
func (r *Refresher) call(ctx context.Context, g *store.Grant, tokens store.TokenSet, code secret.Text, with store.TokenSealer, done func(*Failure)) (*store.Grant, error) {
	ctx = context.WithoutCancel(ctx)
	sent := r.now()
	request := RefreshRequest{
		BrokerType: g.BrokerType, RefreshToken: tokens.RefreshToken, TradeToken: tokens.TradeToken, Metadata: tokens.Metadata,
		NotAfter: g.Lease.Until.Add(-r.reserve),
	}
	request.CreateNewRefreshToken = r.settler.Policy.RenewsAt(g, sent)
	if r.sendAccess[events.BrokerKey(g.BrokerType)] || g.SendAccess {
		request.AccessToken = newestAccess(g, tokens)
	}
	if !code.Empty() {
		request.MFACode, request.AccessToken = code, tokens.Interim
	}
	for _, account := range tokens.Accounts {
		request.Held = append(request.Held, account.AccessToken, account.RefreshToken)
	}
	request.Known = tokens.Spare
	r.record(audit.Opened, audit.OutcomeRefresh, g)
	answer, err := r.mesh.Refresh(ctx, request)
	if err != nil {
		f := AsFailure(err)
		done(f)
		tracing.Set(ctx, tracing.Outcome(string(f.Class)))
		if f.Class == uncalled {
			return nil, r.tooLate(ctx, g)
		}
		r.metrics.call(g.BrokerType, r.now().Sub(sent), f)
		f.choose(g, &tokens, with.Key)
		p := pending{id: r.newID(), grantID: g.ID, answer: f.Answer, presented: tokens.RefreshToken, connectedAt: g.ConnectedAt, epoch: g.Epoch, sent: sent}
		if f.Answer.enough(g); !f.Answer.Rest.Empty() {
			g = r.keepRest(ctx, g, p, with)
			if kept, err := r.Tokens(ctx, g); err == nil {
				tokens = kept
			}
		}
		switch {
		case !f.Interim.Empty(), !f.RefreshToken.Empty():
			p.id, p.answer, p.beside = r.newID(), f.demanding(), f.RefreshToken.Empty()
			return r.awaitCode(ctx, g, tokens, f, p, !code.Empty(), with)
		case !code.Empty():
			return r.codeFailed(ctx, g, f)
		}
		return r.failed(ctx, g, f)
	}
	done(r.contradicted(ctx, g, answer.Contradicts))
	answer.enough(g)
	tracing.Set(ctx, tracing.Outcome(refreshed))
	r.metrics.call(g.BrokerType, r.now().Sub(sent), nil)
	saved := r.keep(ctx, g, pending{
		id: r.newID(), grantID: g.ID, answer: answer, presented: tokens.RefreshToken, connectedAt: g.ConnectedAt, epoch: g.Epoch,
		renewed: request.CreateNewRefreshToken, sent: sent,
	}, with)
	if saved == nil {
		return nil, nil
	}
	tracing.Log(ctx, r.log).Info("refreshed", zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.Int64("version", saved.Version))
	rev := saved.Rev
	saved = r.leave(ctx, saved)
	r.dispatcher.Send(ctx, saved)
	r.verdicts.succeeded(ctx, g.BrokerType)
	if len(saved.Accounts) != len(g.Accounts) || rev != g.Rev+1 || saved.Apart {
		if err := r.changed(ctx, g.UserID); err != nil {
			r.log.Warn("sorting out accounts after a refresh failed; the next connect or refresh does it", zap.String("grant", g.ID), zap.Error(err))
		}
	}
	return saved, nil
}

// newestAccess is the access token that goes along with a refresh: one that the last
// answers covered, if there is one.
func newestAccess(g *store.Grant, tokens store.TokenSet) (token secret.Text) {
	for _, its := range tokens.Accounts {
		if its.AccessToken.Empty() {
			continue
		}
		if a := g.Account(its.AccountID); a == nil || g.Newest(*a) {
			return its.AccessToken
		}
		if token.Empty() {
			token = its.AccessToken
		}
	}
	return token
}

// contradicted tells of an answer whose statuses or form say that it has no tokens,
// though it has. It returns what counts of them: that we ask too often.
func (r *Refresher) contradicted(ctx context.Context, g *store.Grant, said *Failure) *Failure {
	if said == nil {
		return nil
	}
	r.metrics.contradicted.WithLabelValues(r.metrics.broker(g.BrokerType), string(said.Class)).Inc()
	tracing.Log(ctx, r.log).Warn("an answer brings tokens though its statuses or its form speak against it; the tokens count",
		zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.String("class", string(said.Class)), zap.String("detail", said.Detail))
	if said.Class == RateLimited {
		return said
	}
	return nil
}

// failed stores what a failure means. If that can't be stored now the lease
// runs out, and whoever takes it over finds the outcome unknown.
func (r *Refresher) failed(ctx context.Context, g *store.Grant, f *Failure) (*store.Grant, error) {
	fields := []zap.Field{
		zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.String("class", string(f.Class)),
		zap.Bool("ambiguous", f.Ambiguous), zap.String("detail", f.Detail), zap.String("errorType", f.ErrorType), zap.String("errorHash", f.ErrorHash), zap.NamedError("cause", f.Err),
	}
	log := tracing.Log(ctx, r.log)
	if f.Class == Denied {
		log.Error("Mesh refuses the client credentials: all refreshes pause; check mesh.client_id and mesh.client_secret", fields...)
	} else {
		log.Warn("refresh failed", fields...)
	}
	if f.Refusal() && !curable(g, f) {
		f.Held = r.verdicts.refused(ctx, g)
	}
	for {
		next := g.Clone()
		if err := r.settler.Failed(next, f); err != nil {
			return nil, err
		}
		saved, err := r.commitState(ctx, g, next)
		if err != nil || saved == next || saved.Lease == nil || g.Lease == nil || saved.Lease.Owner != g.Lease.Owner {
			return saved, err
		}
		// Something else about the grant has changed meanwhile; the failure is as
		// much of it as before.
		g = saved
	}
}

// unopened handles a token set that can't be read.
func (r *Refresher) unopened(ctx context.Context, g *store.Grant, err error) (*store.Grant, error) {
	next := g.Clone()
	next.Lease = nil
	if !errors.Is(err, envelope.ErrSealed) {
		// For now, or until somebody restores a key: no token was spent.
		if saveErr := r.settler.Failed(next, &Failure{Class: Transient, Detail: "no key"}); saveErr != nil {
			return nil, saveErr
		}
		r.log.Error("a token set can't be opened now", zap.String("grant", g.ID), zap.Error(err))
		return r.commitState(ctx, g, next)
	}
	r.metrics.unopened.Inc()
	r.log.Error("a stored token set does not open: it was changed from outside, or the database is an older copy", zap.String("grant", g.ID), zap.Error(err))
	if err := r.settler.Expire(next, events.ReasonUnreadable); err != nil {
		return nil, err
	}
	return r.commitState(ctx, g, next)
}

// commitState saves a change that holds no new tokens. Where the grant has
// changed meanwhile, whoever changed it knew better.
func (r *Refresher) commitState(ctx context.Context, g, next *store.Grant) (*store.Grant, error) {
	err := r.store.Save(ctx, next)
	if errors.Is(err, store.ErrConflict) {
		return r.store.Get(ctx, g.ID)
	}
	if err != nil {
		return nil, err
	}
	r.sendState(ctx, g, next)
	return next, nil
}

// sendState tells of a change that was saved.
func (r *Refresher) sendState(ctx context.Context, g, next *store.Grant) {
	if next.State == store.Expired && g.State != store.Expired {
		r.metrics.ended.WithLabelValues(string(next.Reason)).Inc()
		tracing.Log(ctx, r.log).Warn("grant expired", zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.String("reason", string(next.Reason)))
	}
	r.dispatcher.Send(ctx, next)
}

// Pauses between attempts to bring an answer into the database or the
// recovery stream.
const (
	keepPauseMin = 100 * time.Millisecond
	keepPauseMax = 5 * time.Second
)

// keep brings an answer into the database, or else into the recovery stream.
// It tries both in turn until one has it: there is nothing better to do with a
// refresh token that exists nowhere else. The grant is nil when the answer
// went into the recovery stream.
func (r *Refresher) keep(ctx context.Context, g *store.Grant, p pending, with store.TokenSealer) *store.Grant {
	for pause := keepPauseMin; ; pause = min(pause*2, keepPauseMax) {
		if with.Over(r.now()) {
			// The process was held up for long. What nothing is sealed under yet is
			// pruned before long.
			with = r.renewed(ctx, g, with)
		}
		saved, err := r.apply(ctx, g, p, with)
		if err == nil {
			return saved
		}
		if errors.Is(err, store.ErrNotFound) {
			r.log.Info("the grant was erased while it was being refreshed", zap.String("grant", g.ID))
			return nil
		}
		rescueErr := r.rescue(ctx, g, p, with)
		tracing.Log(ctx, r.log).Error("an answer can't be stored", zap.String("grant", g.ID), zap.Error(err), zap.Bool("rescued", rescueErr == nil), zap.NamedError("rescueError", rescueErr))
		if rescueErr == nil {
			return nil
		}
		time.Sleep(pause)
		with = r.renewed(ctx, g, with)
	}
}

// renewed returns a sealer under the data key that is active now, or the one at
// hand if that can't be had.
func (r *Refresher) renewed(ctx context.Context, g *store.Grant, with store.TokenSealer) store.TokenSealer {
	if fresh, err := r.envelope.Sealer(ctx, g.UserID); err == nil {
		with.Sealer = fresh
	}
	return with
}

// Tokens opens a grant's token set.
func (r *Refresher) Tokens(ctx context.Context, g *store.Grant) (store.TokenSet, error) {
	return store.OpenTokens(ctx, r.envelope, g.Sealed, g.Binding())
}

// Suspended returns how long no refresh may start at a broker, whatever the
// grant; 0: one may start, or wait for its turn.
func (r *Refresher) Suspended(broker string) time.Duration { return r.queue.limits.Suspended(broker) }

// Opens reports whether Tokens would not have to wait for anything.
func (r *Refresher) Opens(g *store.Grant) bool { return r.envelope.Holds(g.Sealed.KeyID) }
