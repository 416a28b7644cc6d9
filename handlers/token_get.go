package handlers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
)

// TokenService answers requests for the current tokens of a user.
type TokenService struct {
	store     *store.Store
	grants    *grantCache
	refresher *refresher.Refresher
	subjects  events.Subjects
	cfg       config.Tokens
	skew      time.Duration
	now       func() time.Time
	log       *zap.Logger
	requests  *prometheus.CounterVec
	handed    prometheus.Counter // of requests, those that were
	codes     *prometheus.CounterVec
	// Audit and Tracer are set before Start.
	Audit  TokenAudit
	Tracer tracing.Tracer
	keys   *ConnectKeys // nil: none are given out

	places   places  // of requests that wait
	turns    turns   // at reading
	flights  flights // refreshes that requests wait for
	closing  context.Context
	close    context.CancelFunc
	atWork   sync.WaitGroup
	noting   sync.Mutex // held while no use of a grant may be written
	inboxes  inboxes
	conn     *nats.Conn
	service  micro.Service
	unfollow func()
	metadata map[string]string
	stats    micro.StatsHandler
}

// NewTokenService returns a service that answers once Start has returned. skew is
// by how much clocks may differ.
func NewTokenService(s *store.Store, r *refresher.Refresher, subjects events.Subjects, cfg config.Tokens, skew time.Duration, now func() time.Time, log *zap.Logger, reg prometheus.Registerer) *TokenService {
	t := &TokenService{
		store: s, grants: newGrantCache(cfg.CacheUsers, cfg.CacheAge, now, s.ByUser), refresher: r, subjects: subjects, cfg: cfg, skew: skew, now: now, log: log,
		turns: turns{free: cfg.Concurrency},
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "latchkey", Name: "token_requests_total", Help: "Requests for tokens by the code of the answer.",
		}, []string{"code"}),
	}
	t.closing, t.close = context.WithCancel(context.Background())
	t.inboxes.Inboxes, _ = events.NewInboxes(subjects, cfg.InboxPrefixes...) // checked with the configuration; else it takes none
	t.inboxes.complaints.Interval = time.Minute
	t.handed = t.requests.WithLabelValues(codeOK)
	t.codes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "latchkey", Name: "mfa_codes_total", Help: "Codes of users for refreshes that wait for one, by the code of the answer.",
	}, []string{"code"})
	reg.MustRegister(t.requests, t.codes)
	return t
}

// ServiceVersion is that of the request and reply, in $SRV discovery.
const ServiceVersion = "1.2.0"

// flushTimeout bounds the wait until the NATS server has read what we told it.
const flushTimeout = 5 * time.Second

// Describe has the service tell more about this worker in $SRV discovery, from
// Start on: metadata with INFO and STATS, what stats returns with STATS. Whoever
// may ask $SRV sees them.
func (t *TokenService) Describe(metadata map[string]string, stats func() any) {
	t.metadata, t.stats = metadata, func(*micro.Endpoint) any { return stats() }
}

// Name is that of the service in $SRV discovery.
func (t *TokenService) Name() string {
	if t.subjects.Prefix != "" {
		return t.subjects.Prefix + "-latchkey-tokens"
	}
	return "latchkey-tokens"
}

// Start registers the service with NATS.
func (t *TokenService) Start(nc *nats.Conn) error {
	unfollow, err := t.grants.follow(nc, t.subjects)
	if err != nil {
		return err
	}
	unwatch, err := t.watchInboxes(nc)
	if err != nil {
		unfollow()
		return err
	}
	t.unfollow = func() { unfollow(); unwatch() }
	name := t.Name()
	service, err := micro.AddService(nc, micro.Config{
		Name: name, Version: ServiceVersion,
		Description: "Current access tokens of a user, in the shape of the Link SDK's accessTokens",
		QueueGroup:  name,
		Metadata:    t.metadata, StatsHandler: t.stats,
	})
	if err == nil {
		t.conn, t.service = nc, service
		err = service.AddEndpoint("get", micro.HandlerFunc(t.receive), micro.WithEndpointSubject(t.subjects.TokenGetAll()),
			micro.WithEndpointMetadata(map[string]string{"request": "events.TokenRequest", "reply": "events.TokenReply"}))
	}
	if err == nil {
		err = t.addKeys(service)
	}
	if err == nil {
		err = service.AddEndpoint("mfa", micro.HandlerFunc(t.receiveMFA), micro.WithEndpointSubject(t.subjects.TokenMFAAll()),
			micro.WithEndpointMetadata(map[string]string{"request": "events.MFARequest", "reply": "events.MFAReply"}))
	}
	if err == nil {
		err = nc.FlushTimeout(flushTimeout) // from here on the server knows
	}
	if err != nil {
		t.unfollow()
		return fmt.Errorf("registering the token service: %w", err)
	}
	return nil
}

// Stop takes no more requests and waits for those being answered. It is called
// once.
func (t *TokenService) Stop() error {
	if t.service == nil {
		return nil
	}
	err := t.service.Stop()
	if err == nil {
		t.received()
	}
	t.atWork.Wait()
	t.close()
	t.unfollow()
	return err
}

// received waits until all requests that NATS had sent us when it heard that
// we take no more are being answered. Without a connection there are none.
func (t *TokenService) received() {
	begun := make(chan struct{})
	err := t.conn.FlushTimeout(flushTimeout)
	if err == nil {
		err = t.conn.Barrier(func() { close(begun) })
	}
	if err != nil {
		t.log.Warn("ending the token service without NATS", zap.Error(err))
		return
	}
	<-begun
}

// Get returns the current tokens that a request asks for. Grants with too
// little life left are refreshed first, all at once. The error is a refusal,
// or a fault of the worker. record is told of the grants.
func (t *TokenService) Get(ctx context.Context, in events.TokenRequest, record *audit.Record) (events.TokenReply, error) {
	return t.get(ctx, in, record, asker{hold: func(string) bool { return true }, decide: func() {}})
}

// asker is who waits for what get returns.
type asker struct {
	caller string
	// hold exchanges the place that the asker has for one among those that wait
	// for something else; "": for none.
	hold func(what string) bool
	// decide is called when the grants are those of now.
	decide func()
}

func (t *TokenService) get(ctx context.Context, in events.TokenRequest, record *audit.Record, who asker) (events.TokenReply, error) {
	who.decide()
	all, err := t.read(ctx, in, who.caller)
	if err == nil && len(in.Refused) > 0 {
		all, err = t.endReported(ctx, in, all)
		who.decide()
	}
	if err != nil {
		return events.TokenReply{}, err
	}
	wanted, reports := asked(in, all), reportsOf(in, all)
	refused, grants := t.counting(reports, wanted)
	if waiting := t.waiting(in, grants, refused); len(waiting) > 0 {
		who.hold("")
		t.refreshAll(ctx, in, grants, waiting, refused, who.caller)
		who.decide()
		wanted = grants[:len(wanted)]
	}
	results := t.results(reports, grants)
	if slices.ContainsFunc(wanted, func(g *store.Grant) bool { return t.valid(g) && !t.refresher.Opens(g) }) && !who.hold(forKeys) {
		return events.TokenReply{}, refuse(events.CodeBusy, "too many requests wait for a data key; ask again")
	}
	out, err := t.reply(ctx, in, wanted, record)
	if refusal := (*refusal)(nil); errors.As(err, &refusal) {
		refusal.Refused = results
	}
	out.Refused = results
	return out, err
}

// read returns the grants of a request's user. Callers take turns where they have to
// be read, as they always have for reports of refused tokens: these go by what is
// stored now.
func (t *TokenService) read(ctx context.Context, in events.TokenRequest, caller string) ([]*store.Grant, error) {
	anew := len(in.Refused) > 0
	if all, ok := t.grants.kept(in.UserID); ok && !anew {
		return all, nil
	}
	if err := t.turns.enter(ctx, caller); err != nil {
		return nil, err
	}
	defer t.turns.leave()
	if anew {
		return t.grants.anew(ctx, in.UserID)
	}
	return t.grants.byUser(ctx, in.UserID) // somebody may have read them meanwhile
}

// waiting returns those of some grants, by their place, whose refresh is worth
// waiting for: there is too little life left, or they were reported as refused.
func (t *TokenService) waiting(in events.TokenRequest, grants []*store.Grant, refused map[string]bool) (at []int) {
	minTTL, toGive := t.minTTL(in), t.toGive(in, grants)
	for i, g := range grants {
		if (refused[g.ID] || !t.fresh(g, minTTL)) && !t.inVain(g, toGive && !refused[g.ID]) {
			at = append(at, i)
		}
	}
	return at
}

// kept returns the grants that a request asks for, if it takes no waiting and
// not much work to answer it from them.
func (t *TokenService) kept(in events.TokenRequest) (wanted []*store.Grant, ok bool) {
	all, ok := t.grants.kept(in.UserID)
	if !ok || in.SealTo != nil || len(in.Refused) > 0 {
		return nil, false
	}
	wanted = asked(in, all)
	return wanted, len(t.waiting(in, wanted, nil)) == 0 && !slices.ContainsFunc(wanted, func(g *store.Grant) bool { return t.valid(g) && !t.refresher.Opens(g) })
}

// asked returns those of a user's grants that a request asks for.
func asked(in events.TokenRequest, all []*store.Grant) (wanted []*store.Grant) {
	for _, g := range all {
		if g.State != store.Revoked && len(matching(g, in, all)) > 0 {
			wanted = append(wanted, g)
		}
	}
	return wanted
}

// refreshAll puts what a refresh yields in the place of each grant that needs
// one. Whoever was refused with a token waits as if it was none.
func (t *TokenService) refreshAll(ctx context.Context, in events.TokenRequest, grants []*store.Grant, at []int, refused map[string]bool, caller string) {
	toGive := t.toGive(in, grants)
	var wg sync.WaitGroup
	for _, i := range at {
		g := grants[i]
		wg.Go(func() { grants[i] = t.await(ctx, g, toGive && !refused[g.ID], refused[g.ID], caller) })
	}
	wg.Wait()
}

// matching returns the accounts of a grant that a request asks for, but for
// those that stand in a newer grant.
func matching(g *store.Grant, in events.TokenRequest, all []*store.Grant) []store.Account {
	if in.BrokerType != "" && !events.SameBroker(in.BrokerType, g.BrokerType) {
		return nil
	}
	accounts := g.Accounts
	if len(accounts) == 0 && in.AccountID == "" {
		unknown := store.Account{}
		if g.Access != nil {
			unknown.ExpiresAt = g.Access.ExpiresAt
		}
		return []store.Account{unknown} // not known yet
	}
	passed := func(a store.Account) bool {
		if in.AccountID != "" && in.AccountID != a.ID {
			return true
		}
		if a.ID == "" { // see Grant.Heal
			return len(accounts) > 1
		}
		return slices.ContainsFunc(all, func(other *store.Grant) bool {
			return other.ID != g.ID && other.State != store.Revoked && events.SameBroker(other.BrokerType, g.BrokerType) &&
				other.Account(a.ID) != nil && newerFor(a.ID, other, g)
		})
	}
	if !slices.ContainsFunc(accounts, passed) { // as nearly always: no copy is needed
		return accounts
	}
	return slices.DeleteFunc(slices.Clone(accounts), passed)
}

// reply builds the answer from the grants as they now are.
func (t *TokenService) reply(ctx context.Context, in events.TokenRequest, grants []*store.Grant, record *audit.Record) (events.TokenReply, error) {
	if len(grants) == 0 {
		return events.TokenReply{}, refuse(events.CodeUnknownUser, "nothing is stored that matches")
	}
	out := events.TokenReply{Expiries: []events.TokenExpiry{}}
	for _, g := range grants {
		accounts := matching(g, in, grants)
		withheld := func(code string, accounts ...store.Account) {
			for _, a := range accounts {
				given(record, g, code, a.ID)
				out.Unavailable = append(out.Unavailable, t.withheld(g, a.ID, code))
			}
		}
		if code := t.unavailable(g); code != "" {
			withheld(code, accounts...)
			continue
		}
		tokens, err := t.refresher.Tokens(ctx, g)
		if err != nil {
			t.log.Error("tokens that were asked for can't be opened", zap.String("grant", g.ID), zap.Error(err))
			withheld(events.CodeBusy, accounts...)
			continue
		}
		t.used(g)
		if g.Account("") != nil {
			g = g.Clone()
			g.Heal(&tokens)
			accounts = matching(g, in, grants)
		}
		for _, a := range accounts {
			token, life := tokens.Account(a.ID), g.AccessOf(a)
			if token == nil || token.AccessToken.Empty() || t.over(life) {
				u := t.uncovered(g, a, life)
				given(record, g, u.Code, a.ID)
				out.Unavailable = append(out.Unavailable, u)
				continue
			}
			given(record, g, "", a.ID)
			out.AccessTokens = append(out.AccessTokens, events.IntegrationAccessToken{
				AccountID: a.ID, AccountName: a.Name, AccessToken: token.AccessToken, BrokerType: g.BrokerType, BrokerName: g.BrokerName, TokenID: token.TokenID,
			})
			expiry := events.TokenExpiry{
				AccountID: a.ID, GrantID: g.ID, Labels: g.Labels, Version: g.Version, ObtainedAt: obtained(g, a), ExpiresAt: a.ExpiresAt, RefreshFailing: refresher.RefreshFailing(g),
			}
			if g.Refresh != nil {
				expiry.RefreshTokenExpiresAt = g.Refresh.ExpiresAt
			}
			out.Expiries = append(out.Expiries, expiry)
		}
	}
	if len(out.AccessTokens) > 0 {
		return out, nil
	}
	r := refuse(worst(out.Unavailable), "no token can be given; see unavailable")
	r.RetryAfterSeconds = 0 // the accounts tell
	r.Unavailable = out.Unavailable
	for _, u := range out.Unavailable {
		if u.Code == events.CodeBusy && (r.RetryAfterSeconds == 0 || u.RetryAfterSeconds < r.RetryAfterSeconds) {
			r.RetryAfterSeconds = u.RetryAfterSeconds
		}
	}
	return events.TokenReply{}, r
}

const (
	// usesTimeout bounds the write of the use of a grant.
	usesTimeout = 5 * time.Second
	// usesShare is the part of the time in which uses are written. Writes without
	// a pause cost a seventh of the first requests for users.
	usesShare = 5
)

// used records in the database, once for each version of a grant, that it is in
// use: of two refreshes that wait, the one in use goes first. It is a hint: while
// another use is written, and for a pause after that, this one is left to the next
// request.
func (t *TokenService) used(g *store.Grant) {
	if g.UsedIn == g.Version || !t.noting.TryLock() {
		return
	}
	t.grants.used(g)
	t.atWork.Go(func() {
		begun := time.Now()
		defer func() { time.AfterFunc((usesShare-1)*time.Since(begun), t.noting.Unlock) }()
		ctx, cancel := context.WithTimeout(context.Background(), usesTimeout)
		defer cancel()
		if err := t.store.Used(ctx, g); err != nil {
			t.log.Debug("the use of a grant could not be noted", zap.String("grant", g.ID), zap.Error(err))
		}
	})
}

// unavailable is the code of a grant that has no token to give, "" if it has.
func (t *TokenService) unavailable(g *store.Grant) string { return t.without(g, g.LastAccess()) }

// without is the code for an access token of a grant that can't be given by its life,
// "" if it can.
func (t *TokenService) without(g *store.Grant, life *store.Life) string {
	over := t.over(life)
	switch {
	case g.State == store.Expired || g.State == store.Revoked:
		return events.CodeExpired
	case over && g.State == store.MustAct:
		return events.CodeMustAct
	case over && refresher.RefreshTokenOver(g, t.now()):
		return events.CodeExpired
	case over:
		return events.CodeBusy
	}
	return ""
}

func (t *TokenService) withheld(g *store.Grant, account, code string) events.UnavailableAccount {
	u := events.UnavailableAccount{AccountID: account, BrokerType: g.BrokerType, GrantID: g.ID, Code: code, Reason: g.Reason}
	if code == events.CodeBusy {
		u.RetryAfterSeconds = t.retryAfter(g)
	}
	return u
}

// uncovered is withheld for an account whose grant has tokens to give to others. If it
// had one of the newest, the next refresh brings another. If refreshes do not cover it
// nothing helps but a new connect, once it was asked for in vain.
func (t *TokenService) uncovered(g *store.Grant, account store.Account, life *store.Life) events.UnavailableAccount {
	if code := t.without(g, life); code != "" && g.Newest(account) {
		return t.withheld(g, account.ID, code)
	}
	code := events.CodeExpired
	if life != nil && life.ExpiresAt != nil && !life.Warned && refresher.NeedsCall(g, t.now()) {
		code = events.CodeBusy
	}
	u := t.withheld(g, account.ID, code)
	if u.Reason == "" {
		u.Reason = events.ReasonNotCovered
	}
	return u
}

// worst picks the code that tells the caller what to do: asking again helps
// before anything else, then the user's action, then a new connect.
func worst(all []events.UnavailableAccount) string {
	code := events.CodeUnknownUser
	rank := map[string]int{events.CodeExpired: 1, events.CodeMustAct: 2, events.CodeBusy: 3}
	for _, u := range all {
		if rank[u.Code] > rank[code] {
			code = u.Code
		}
	}
	return code
}
