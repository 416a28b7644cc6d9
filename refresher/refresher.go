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
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
	"github.com/latchkey/latchkey/store/envelope"
)

// Deps is what a Refresher works with. All but Audit and Workers is required.
type Deps struct {
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
	// Workers returns how many workers share the limits (Crew.Workers); nil: this one is
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
	// Lease is how long a lease lasts; CallAndSave what a call and the save of
	// its answer may take, for which it must last; ClockSkew what clocks may
	// differ by.
	Lease, CallAndSave, ClockSkew time.Duration
	// RefusedPause is how long after a report of a refused access token the next one
	// of the same grant counts.
	RefusedPause time.Duration
	// Remember is how long the refresh token of a deleted grant is remembered as spent.
	Remember time.Duration
	// SendAccess lists the broker types whose refresh needs the access token.
	SendAccess []string
	// Changed sorts out the grants of a user after a refresh has changed accounts.
	Changed func(ctx context.Context, userID string) error
	// ParkAnswer makes a dead letter of what an answer about a grant left. It returns
	// nil when NATS has it.
	ParkAnswer func(ctx context.Context, g *store.Grant, id string, body []byte) error
	Audit      *audit.Log // nil: no audit log
	Log        *zap.Logger
	Metrics    prometheus.Registerer
}

// Refresher refreshes grants. It is safe for concurrent use.
type Refresher struct {
	deps       Deps
	queue      *Queue
	sendAccess map[string]bool // by the key of a broker type
	metrics    *metrics
	verdicts   *verdicts
	// underWay counts refreshes from before they wait for their turn until
	// their answers are kept.
	underWay sync.WaitGroup
}

// New returns a Refresher.
func New(d Deps) *Refresher {
	r := &Refresher{deps: d, sendAccess: map[string]bool{}, metrics: newMetrics(d.Metrics)}
	r.verdicts = &verdicts{store: d.Store, hold: d.Hold, now: d.Now, log: d.Log, metrics: r.metrics, cleared: map[string]time.Time{}}
	r.queue = NewQueue(NewLimits(d.Limits, d.Credentials, d.Now, d.Workers, r.metrics.onBreaker), d.Concurrency, 3*d.Concurrency, d.Now)
	for _, broker := range d.SendAccess {
		r.sendAccess[events.BrokerKey(broker)] = true
	}
	return r
}

// Stop rejects the refreshes that wait for their turn, and all that come later.
// Refreshes that have begun continue; Wait waits for them.
func (r *Refresher) Stop() { r.queue.Close() }

// Wait returns when, after Stop, the answer of every call is kept.
func (r *Refresher) Wait() { r.underWay.Wait() }

// Due handles a refresh.due message. After nil the caller acknowledges it: all is
// done, or the message is out of date. A *LaterError or *store.LeasedError says when
// to retry. After any other error no token was spent, or the answer is on its way into
// the database.
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
	// Only a call has to wait: for its turn, or for KMS. The grant may have changed
	// since the message was written.
	g, err := r.deps.Store.Get(ctx, m.GrantID)
	if err != nil {
		return err
	}
	if !matches(g, m) {
		return store.ErrStale
	}
	if NeedsCall(g, r.deps.Now()) {
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

// inTime adds a grant's last try to a *LaterError, in a copy: several callers may
// share the error.
func (r *Refresher) inTime(g *store.Grant, err error) error {
	var later *LaterError
	last := r.deps.Settler.Policy.LastTry(g)
	if last == nil || !errors.As(err, &later) {
		return err
	}
	return &LaterError{After: later.After, Why: later.Why, LastTry: *last}
}

// Now refreshes a grant of this version before it is due. It returns the grant as
// stored afterwards, refreshed or not. The errors are those of Due and store.Acquire.
func (r *Refresher) Now(ctx context.Context, g *store.Grant) (*store.Grant, error) {
	return r.onDemand(ctx, g, demand{})
}

// demand is why a grant is to be refreshed.
type demand struct {
	dueAt   *time.Time     // the due time that has come; nil: on request
	refused *store.Refused // the report of a refused access token that requests it
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

// end gives the permission back with the outcome of the call. Later outcomes count
// for nothing.
func (p *permit) end(f *Failure) {
	if p.done != nil {
		p.done(f)
		p.done = nil
	}
}

// unused gives the permission back if no call was made.
func (p *permit) unused() { p.end(&Failure{Class: uncalled, Detail: "no call was made"}) }

// refresh does everything between the permission and the event. The user may be
// empty: messages don't name users. Without done there is no permission to call:
// what is due needed none when it was looked at.
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
		Refused: d.refused, RefusedSince: now.Add(-r.deps.RefusedPause),
	})
	if err != nil {
		return nil, err
	}
	if d.dueAt != nil {
		r.metrics.lateness.WithLabelValues(r.metrics.broker(g.BrokerType)).Observe(max(now.Sub(*d.dueAt), 0).Seconds())
	}
	// Opening may have to wait for KMS; nothing may lie between the look at what
	// earlier leases brought and the call.
	var tokens store.TokenSet
	var opened error
	if mayCall {
		tokens, opened = r.Tokens(ctx, g)
	}
	current, ours, err := r.settleEarlier(ctx, g, takenOver)
	if err != nil || !ours {
		return current, err
	}
	g = current
	next := g.Clone()
	if ended, err := r.withoutRefresh(ctx, next); err != nil {
		return nil, err
	} else if ended {
		turn.unused()
		next.Lease = nil
		return r.commitState(ctx, g, next)
	}
	if !mayCall {
		return nil, r.postpone(ctx, g)
	}
	if opened != nil {
		turn.unused()
		return r.unreadable(ctx, g, opened)
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
		r.deps.Settler.Revive(next)
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

// call spends the refresh token. From here on the end of ctx stops nothing: the answer
// is kept even while the process shuts down. A code completes a refresh that waits for
// it.
func (r *Refresher) call(ctx context.Context, g *store.Grant, tokens store.TokenSet, code secret.Text, with store.TokenSealer, turn *permit) (*store.Grant, error) {
	ctx = context.WithoutCancel(ctx)
	sent := r.deps.Now()
	request := RefreshRequest{
		BrokerType: g.BrokerType, RefreshToken: tokens.RefreshToken, TradeToken: tokens.TradeToken, Metadata: tokens.Metadata,
		NotAfter: g.Lease.Until.Add(-r.deps.CallAndSave),
	}
	request.CreateNewRefreshToken = r.deps.Settler.Policy.RenewsAt(g, sent)
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
	answer, err := r.deps.Mesh.Refresh(ctx, request)
	if err != nil {
		f := AsFailure(err)
		turn.end(f)
		tracing.Set(ctx, tracing.Outcome(string(f.Class)))
		if f.Class == uncalled {
			return nil, r.tooLate(ctx, g)
		}
		r.metrics.call(g.BrokerType, r.deps.Now().Sub(sent), f)
		f.chooseRefreshToken(g, &tokens, with.Key)
		p := pending{id: r.deps.NewID(), grantID: g.ID, answer: f.Answer, presented: tokens.RefreshToken, connectedAt: g.ConnectedAt, epoch: g.Epoch, sent: sent}
		if f.Answer.dropDoubtful(g); !f.Answer.Rest.Empty() {
			g = r.keepRest(ctx, g, p, with)
			if kept, err := r.Tokens(ctx, g); err == nil {
				tokens = kept
			}
		}
		switch {
		case !f.Interim.Empty(), !f.RefreshToken.Empty():
			p.id, p.answer, p.beside = r.deps.NewID(), f.demanding(), f.RefreshToken.Empty()
			return r.awaitCode(ctx, g, tokens, f, p, !code.Empty(), with)
		case !code.Empty():
			return r.codeFailed(ctx, g, f)
		}
		return r.failed(ctx, g, f)
	}
	turn.end(r.reportContradiction(ctx, g, answer.Contradicts))
	answer.dropDoubtful(g)
	tracing.Set(ctx, tracing.Outcome(refreshed))
	r.metrics.call(g.BrokerType, r.deps.Now().Sub(sent), nil)
	saved := r.keep(ctx, g, pending{
		id: r.deps.NewID(), grantID: g.ID, answer: answer, presented: tokens.RefreshToken, connectedAt: g.ConnectedAt, epoch: g.Epoch,
		renewed: request.CreateNewRefreshToken, sent: sent,
	}, with)
	if saved == nil {
		return nil, nil
	}
	tracing.Log(ctx, r.deps.Log).Info("refreshed", zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.Int64("version", saved.Version))
	saved = r.finish(ctx, saved, len(saved.Accounts) != len(g.Accounts) || saved.Rev != g.Rev+1)
	r.verdicts.succeeded(ctx, g.BrokerType)
	return saved, nil
}

// finish does what follows once an answer is stored: dead letters, events, and, where
// the answer may concern other grants of the user, sorting out who has which account.
func (r *Refresher) finish(ctx context.Context, saved *store.Grant, others bool) *store.Grant {
	saved = r.ParkLeftovers(ctx, saved)
	r.deps.Dispatcher.Send(ctx, saved)
	if others || saved.Apart {
		if err := r.deps.Changed(ctx, saved.UserID); err != nil {
			r.deps.Log.Warn("sorting out accounts after an answer failed; the next connect or refresh does it", zap.String("grant", saved.ID), zap.Error(err))
		}
	}
	return saved
}

// newestAccess is the access token to send along with a refresh, if possible one that
// the last answers covered.
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

// reportContradiction reports an answer with tokens whose statuses or form say that it has
// none. Of what they say it returns only a rate limit.
func (r *Refresher) reportContradiction(ctx context.Context, g *store.Grant, said *Failure) *Failure {
	if said == nil {
		return nil
	}
	r.metrics.contradicted.WithLabelValues(r.metrics.broker(g.BrokerType), string(said.Class)).Inc()
	tracing.Log(ctx, r.deps.Log).Warn("an answer brings tokens though its statuses or its form speak against it; the tokens count",
		zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.String("class", string(said.Class)), zap.String("detail", said.Detail))
	if said.Class == RateLimited {
		return said
	}
	return nil
}

// failed stores what a failure means. If that fails the lease runs out, and the next
// worker finds the outcome unknown.
func (r *Refresher) failed(ctx context.Context, g *store.Grant, f *Failure) (*store.Grant, error) {
	fields := []zap.Field{
		zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.String("class", string(f.Class)),
		zap.Bool("ambiguous", f.Ambiguous), zap.String("detail", f.Detail), zap.String("errorType", f.ErrorType), zap.String("errorHash", f.ErrorHash), zap.NamedError("cause", f.Err),
	}
	log := tracing.Log(ctx, r.deps.Log)
	if f.Class == Denied {
		log.Error("Mesh refuses the client credentials: all refreshes pause; check mesh.client_id and mesh.client_secret", fields...)
	} else {
		log.Warn("refresh failed", fields...)
	}
	if f.Refusal() && !curable(g, f) {
		f.Held = r.verdicts.refused(ctx, g)
	}
	next, err := r.underLease(ctx, g, func(next *store.Grant) error { return r.deps.Settler.Failed(next, f) })
	if err == nil {
		r.sendState(ctx, g, next)
	}
	if errors.Is(err, store.ErrConflict) {
		return next, nil // whoever changed it knew better
	}
	return next, err
}

// unreadable handles a token set that does not open.
func (r *Refresher) unreadable(ctx context.Context, g *store.Grant, err error) (*store.Grant, error) {
	next := g.Clone()
	next.Lease = nil
	if !errors.Is(err, envelope.ErrSealed) {
		// For now, or until somebody restores a key: no token was spent.
		if saveErr := r.deps.Settler.Failed(next, &Failure{Class: Transient, Detail: "no key"}); saveErr != nil {
			return nil, saveErr
		}
		r.deps.Log.Error("a token set can't be opened now", zap.String("grant", g.ID), zap.Error(err))
		return r.commitState(ctx, g, next)
	}
	r.metrics.unopened.Inc()
	r.deps.Log.Error("a stored token set does not open: it was changed from outside, or the database is an older copy", zap.String("grant", g.ID), zap.Error(err))
	if err := r.deps.Settler.Expire(next, events.ReasonUnreadable); err != nil {
		return nil, err
	}
	return r.commitState(ctx, g, next)
}

// commitState saves a change without new tokens. If the grant has changed meanwhile it
// returns that one: whoever changed it knew better.
func (r *Refresher) commitState(ctx context.Context, g, next *store.Grant) (*store.Grant, error) {
	err := r.deps.Store.Save(ctx, next)
	if errors.Is(err, store.ErrConflict) {
		return r.deps.Store.Get(ctx, g.ID)
	}
	if err != nil {
		return nil, err
	}
	r.sendState(ctx, g, next)
	return next, nil
}

// sendState announces a saved change.
func (r *Refresher) sendState(ctx context.Context, g, next *store.Grant) {
	if next.State == store.Expired && g.State != store.Expired {
		r.metrics.ended.WithLabelValues(string(next.Reason)).Inc()
		tracing.Log(ctx, r.deps.Log).Warn("grant expired", zap.String("grant", g.ID), zap.String("broker", g.BrokerType), zap.String("reason", string(next.Reason)))
	}
	r.deps.Dispatcher.Send(ctx, next)
}

// Pauses between attempts to bring an answer into the database or the
// recovery stream.
const (
	keepPauseMin = 100 * time.Millisecond
	keepPauseMax = 5 * time.Second
)

// keep stores an answer in the database, or else in the recovery stream. It tries
// both in turn until one has it: the refresh token exists nowhere else. The grant is
// nil when the answer is in the recovery stream, or the grant was erased.
func (r *Refresher) keep(ctx context.Context, g *store.Grant, p pending, with store.TokenSealer) *store.Grant {
	for pause := keepPauseMin; ; pause = min(pause*2, keepPauseMax) {
		if with.Expired(r.deps.Now()) {
			// The process was held up for so long that the data key may be pruned.
			with = r.renewed(ctx, g, with)
		}
		saved, err := r.apply(ctx, g, p, with)
		if err == nil {
			return saved
		}
		if errors.Is(err, store.ErrNotFound) {
			r.deps.Log.Info("the grant was erased while it was being refreshed", zap.String("grant", g.ID))
			return nil
		}
		rescueErr := r.rescue(ctx, g, p, with)
		tracing.Log(ctx, r.deps.Log).Error("an answer can't be stored", zap.String("grant", g.ID), zap.Error(err), zap.Bool("rescued", rescueErr == nil), zap.NamedError("rescueError", rescueErr))
		if rescueErr == nil {
			return nil
		}
		time.Sleep(pause)
		with = r.renewed(ctx, g, with)
	}
}

// renewed returns a sealer under the active data key, or the one at hand if there is
// none to get.
func (r *Refresher) renewed(ctx context.Context, g *store.Grant, with store.TokenSealer) store.TokenSealer {
	if fresh, err := r.deps.Envelope.Sealer(ctx, g.UserID); err == nil {
		with.Sealer = fresh
	}
	return with
}

// Tokens opens a grant's token set.
func (r *Refresher) Tokens(ctx context.Context, g *store.Grant) (store.TokenSet, error) {
	return store.OpenTokens(ctx, r.deps.Envelope, g.Sealed, g.Binding())
}

// Suspended returns how long no refresh may start at a broker, whatever the
// grant; 0: one may start, or wait for its turn.
func (r *Refresher) Suspended(broker string) time.Duration { return r.queue.limits.Suspended(broker) }

// HasDataKey reports whether Tokens would not have to wait for anything.
func (r *Refresher) HasDataKey(g *store.Grant) bool { return r.deps.Envelope.Cached(g.Sealed.KeyID) }
