package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/sealing"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
)

// reply is what a request is answered with, until it is encoded.
type reply struct {
	events.TokenReply // without the secrets in AccessTokens
	texts             []events.TokenTexts
	opened            []*store.AccessTexts // where the texts are
	grants            []*store.Grant       // whose tokens were opened
}

// encode returns the body of the answer, sealed if the request asks for that, and wipes the
// texts.
func (r *reply) encode(sealTo *events.JWK) ([]byte, error) {
	defer r.wipe()
	body, err := r.EncodeTexts(r.texts)
	if err != nil || sealTo == nil {
		return body, err
	}
	defer clear(body)
	key, err := sealing.NewPublicKey(*sealTo)
	if err != nil {
		return nil, errors.New("the key to seal a reply to is none, though the request was accepted")
	}
	sealed, err := key.Seal(body)
	if err != nil {
		return nil, fmt.Errorf("sealing a reply: %w", err)
	}
	return sealed, nil
}

func (r *reply) wipe() {
	for _, texts := range r.opened {
		texts.Wipe()
	}
	r.opened, r.texts = nil, nil
}

// reply builds the answer from the current grants.
func (t *Service) reply(ctx context.Context, in events.TokenRequest, grants []*store.Grant, record *audit.Record) (out *reply, err error) {
	if len(grants) == 0 {
		return &reply{}, refuse(events.CodeUnknownUser, "nothing is stored that matches")
	}
	built := &reply{}
	defer func() {
		if out != built { // also after a panic
			built.wipe()
		}
	}()
	for _, g := range grants {
		t.addGrant(ctx, in, g, grants, record, built)
	}
	if len(built.AccessTokens) > 0 {
		return built, nil
	}
	r := refuse(worst(built.Unavailable), "no token can be given; see unavailable")
	r.RetryAfterSeconds = 0 // the accounts say when
	r.Unavailable = built.Unavailable
	for _, u := range built.Unavailable {
		if u.Code == events.CodeBusy && (r.RetryAfterSeconds == 0 || u.RetryAfterSeconds < r.RetryAfterSeconds) {
			r.RetryAfterSeconds = u.RetryAfterSeconds
		}
	}
	return &reply{}, r
}

// addGrant adds what is asked for of one of the wanted grants.
func (t *Service) addGrant(ctx context.Context, in events.TokenRequest, g *store.Grant, wanted []*store.Grant, record *audit.Record, out *reply) {
	withheld := func(code string) {
		for _, a := range matching(g, in, wanted) {
			addAccount(record, g, code, a.ID)
			out.Unavailable = append(out.Unavailable, t.unavailableAccount(g, a.ID, code))
		}
	}
	if code := t.unavailable(g); code != "" {
		withheld(code)
		return
	}
	healed, texts, err := t.opts.Refresher.Access(ctx, g)
	if err != nil {
		t.opts.Log.Error("tokens that were asked for can't be opened", zap.String("grant", g.ID), zap.Error(err))
		withheld(events.CodeBusy)
		return
	}
	out.opened, out.grants = append(out.opened, texts), append(out.grants, g)
	t.recordUse(g)
	g = healed
	for _, a := range matching(g, in, wanted) {
		token, ok := texts.Of(a.ID)
		life := g.AccessOf(a)
		if !ok || t.expired(life) {
			u := t.uncoveredAccount(g, a, life)
			addAccount(record, g, u.Code, a.ID)
			out.Unavailable = append(out.Unavailable, u)
			continue
		}
		addAccount(record, g, "", a.ID)
		out.texts = append(out.texts, token)
		out.AccessTokens = append(out.AccessTokens, events.IntegrationAccessToken{AccountID: a.ID, AccountName: a.Name, BrokerType: g.BrokerType, BrokerName: g.BrokerName})
		expiry := events.TokenExpiry{
			AccountID: a.ID, GrantID: g.ID, Labels: g.Labels, Version: g.Version, ObtainedAt: obtained(g, a), ExpiresAt: a.ExpiresAt, RefreshFailing: refresher.RefreshFailing(g),
		}
		if g.Refresh != nil {
			expiry.RefreshTokenExpiresAt = g.Refresh.ExpiresAt
		}
		out.Expiries = append(out.Expiries, expiry)
	}
}

const (
	// usesTimeout bounds the write of the use of a grant.
	usesTimeout = 5 * time.Second
	// usesShare: uses are written during a fifth of the time. Writing without a pause
	// slowed first requests for users by a seventh.
	usesShare = 5
)

// recordUse records once for each version of a grant that it is in use, so that its refresh
// goes before those of grants that are not. It is a hint: while another use is written,
// and for a pause after that, this one is left to the next request.
func (t *Service) recordUse(g *store.Grant) {
	if g.UsedIn == g.Version || !t.noting.TryLock() {
		return
	}
	t.grants.markUsed(g)
	t.atWork.Go(func() {
		begun := time.Now()
		defer func() { time.AfterFunc((usesShare-1)*time.Since(begun), t.noting.Unlock) }()
		ctx, cancel := context.WithTimeout(context.Background(), usesTimeout)
		defer cancel()
		if err := t.writeUse(ctx, g); err != nil {
			t.opts.Log.Debug("the use of a grant could not be recorded", zap.String("grant", g.ID), zap.Error(err))
		}
	})
}

func (t *Service) writeUse(ctx context.Context, g *store.Grant) (err error) {
	defer panicToError(&err)
	return t.opts.Store.RecordUse(ctx, g)
}

// unavailable is the code of a grant without a token to hand out; "": it has one.
func (t *Service) unavailable(g *store.Grant) string { return t.unavailableCode(g, g.LastAccess()) }

// unavailableCode is the code for an access token that can't be handed out; "": it can.
func (t *Service) unavailableCode(g *store.Grant, life *store.Lifetime) string {
	over := t.expired(life)
	switch {
	case g.State == store.Expired || g.State == store.Revoked:
		return events.CodeExpired
	case over && g.State == store.MustAct:
		return events.CodeMustAct
	case over && refresher.RefreshTokenExpired(g, t.opts.Now()):
		return events.CodeExpired
	case over:
		return events.CodeBusy
	}
	return ""
}

func (t *Service) unavailableAccount(g *store.Grant, account, code string) events.UnavailableAccount {
	u := events.UnavailableAccount{AccountID: account, BrokerType: g.BrokerType, GrantID: g.ID, Code: code, Reason: g.Reason}
	if code == events.CodeBusy {
		u.RetryAfterSeconds = t.retryAfter(g)
	}
	return u
}

// uncoveredAccount is unavailableAccount for an account without a token in a grant whose other accounts
// have some. If it had one of the newest, the next refresh brings another. If refreshes
// do not cover it, only a new connect helps, once a refresh was tried in vain.
func (t *Service) uncoveredAccount(g *store.Grant, account store.Account, life *store.Lifetime) events.UnavailableAccount {
	if code := t.unavailableCode(g, life); code != "" && g.Newest(account) {
		return t.unavailableAccount(g, account.ID, code)
	}
	code := events.CodeExpired
	if life != nil && life.ExpiresAt != nil && !life.Warned && refresher.NeedsCall(g, t.opts.Now()) {
		code = events.CodeBusy
	}
	u := t.unavailableAccount(g, account.ID, code)
	if u.Reason == "" {
		u.Reason = events.ReasonNotCovered
	}
	return u
}

// worst picks the code that says what to do first: ask again, then have the user act,
// then connect anew.
func worst(all []events.UnavailableAccount) string {
	rising, at := []string{events.CodeUnknownUser, events.CodeExpired, events.CodeMustAct, events.CodeBusy}, 0
	for _, u := range all {
		at = max(at, slices.Index(rising, u.Code))
	}
	return rising[at]
}
