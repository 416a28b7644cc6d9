package meshsim

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/latchkey/latchkey/events/secret"
)

func (s *Server) serveRefresh(w http.ResponseWriter, r *http.Request) {
	var q refreshRequest
	err := readJSON(w, r, &q)
	s.exchange(w, r, Request{Operation: OpRefresh, BrokerType: q.Type, Token: FingerprintOf(q.RefreshToken), presented: q.RefreshToken},
		func(id int, a Action) (answer, error) {
			switch {
			case err != nil:
				return badRequest("the body is not the JSON object that is expected"), nil //nolint:nilerr // the client's fault, not ours
			case q.Type == "":
				return badRequest("type is required"), nil
			case q.RefreshToken.Empty():
				return badRequest("refreshToken is required"), nil
			}
			return s.renew(id, q, a)
		})
}

// renew is the institution's work. The caller holds the lock.
func (s *Server) renew(id int, q refreshRequest, a Action) (answer, error) {
	now := s.cfg.Clock()
	at, known := s.book.refresh[FingerprintOf(q.RefreshToken)]
	if !known {
		return failed("the refresh token is unknown"), nil
	}
	c := s.book.chains[at.chain-1]
	i := s.of(c)
	switch {
	case c.BrokerType != q.Type:
		return badRequest("the refresh token is of another type of broker"), nil
	case i.NeedsAccessToken && !s.holds(c, q.AccessToken):
		return badRequest("accessToken is required by this broker"), nil
	case i.NeedsTradeToken && (q.TradeToken == nil || !q.TradeToken.Equal(s.mint.trade(c.ID))):
		return badRequest("tradeToken is required by this broker"), nil
	}
	over := c.over(i, now)
	token := c.Refresh[at.index]
	replaced := !token.ReplacedAt.IsZero()
	grace := replaced && c.Alive() && at.index == len(c.Refresh)-2 && now.Sub(token.ReplacedAt) < i.Grace
	if err := s.record(event{At: now, Reached: &reached{Request: id, Replaced: replaced, WithinGrace: grace}}); err != nil {
		return answer{}, err
	}
	switch {
	case !c.Alive():
		return failed(c.DeadBecause), nil
	case replaced && !grace && i.TolerateReuse:
		return failed("the refresh token was replaced"), nil
	case replaced && !grace:
		return s.die(id, c, DeadByReuse, now)
	case over != "":
		return s.die(id, c, over, now)
	}
	if i.MFACode != "" {
		if q.MFACode == nil || q.MFACode.Empty() {
			return s.challenge(id, c, now)
		}
		switch why := s.wrongCode(c, i, q, now); {
		case why != "" && i.MFAAskedAgain:
			return s.challenge(id, c, now)
		case why != "":
			return failed(why).on(OnWrongCode), nil
		}
	}
	if replaced && a.Kind == KindOmitRefreshToken {
		a = Normal() // the client would keep the replaced token
	}
	if grace && i.GraceMode == GraceNewest {
		return s.resend(id, c, now)
	}
	return s.issue(id, c, q, a, replaced, now)
}

// issue makes new access tokens and, where due, a new refresh token. A client that
// presented a replaced one always gets the current one.
func (s *Server) issue(id int, c *Chain, q refreshRequest, a Action, replaced bool, now time.Time) (answer, error) {
	i := s.of(c)
	rotate := (i.Rotation == RotateAlways ||
		i.Rotation == RotateOnRequest && q.CreateNewRefreshToken != nil && *q.CreateNewRefreshToken) && a.Kind != KindOmitRefreshToken
	accounts := c.nextAccounts(i)
	if rotate && i.RefreshTokenAlone && len(c.Refresh)%2 == 1 {
		accounts = nil
	}
	var events []event
	if rotate {
		events = append(events, event{At: now, Rotated: &rotated{Request: id, Chain: c.ID, Next: RefreshToken{
			Fingerprint: FingerprintOf(s.mint.refresh(c.ID, len(c.Refresh))),
			IssuedAt:    now, IssuedIn: id, ExpiresAt: end(now, i.RefreshLifetime),
		}}})
	}
	if rotate && i.RefreshTokenEach && len(c.Accounts) > 1 {
		events = append(events, s.splitUp(id, c, now)...)
		accounts = c.Accounts[:1]
	}
	events = append(events, s.newAccess(id, c, accounts, now)...)
	if err := s.record(events...); err != nil {
		return answer{}, err
	}
	omit := !rotate && !replaced && (i.OmitKeptRefreshToken || a.Kind == KindOmitRefreshToken)
	return succeeded(s.newest(c, accounts, now, i.DeprecatedAnswer, omit)), nil
}

func (s *Server) splitUp(id int, c *Chain, now time.Time) (events []event) {
	i := s.of(c)
	for n, acc := range c.Accounts[1:] {
		own := len(s.book.chains) + 1 + n
		events = append(events, event{At: now, Split: &split{Request: id, Chain: Chain{
			ID: own, BrokerType: c.BrokerType, BrokerName: c.BrokerName, Accounts: []Account{acc}, Institution: c.Institution,
			ConnectedAt: now, SplitFrom: c.ID, TokenIDs: c.TokenIDs,
			Refresh: []RefreshToken{{Fingerprint: FingerprintOf(s.mint.refresh(own, 0)), IssuedAt: now, IssuedIn: id, ExpiresAt: end(now, i.RefreshLifetime)}},
			Access:  []AccessToken{s.accessToken(own, 0, acc.ID, id, now, i.AccessLifetime)},
		}}})
	}
	return events
}

// nextAccounts are the accounts for which the next answer brings access tokens.
func (c *Chain) nextAccounts(i Institution) []Account {
	switch {
	case i.DeprecatedAnswer:
		return c.Accounts[:1]
	case i.OneTokenForAll:
		return []Account{{}}
	case i.OneAccountAtATime:
		n := len(c.Access) % len(c.Accounts)
		return c.Accounts[n : n+1]
	}
	return c.Accounts
}

// lastAccounts are the accounts for which the last answer brought access tokens.
func (c *Chain) lastAccounts(i Institution) []Account {
	last := lastIndex(c.Access, func(t AccessToken) bool { return !t.Interim })
	if last < 0 || !i.OneAccountAtATime || i.DeprecatedAnswer || i.OneTokenForAll {
		return c.nextAccounts(i)
	}
	return slices.DeleteFunc(slices.Clone(c.Accounts), func(acc Account) bool { return acc.ID != c.Access[last].AccountID })
}

func (s *Server) newAccess(id int, c *Chain, accounts []Account, now time.Time) (events []event) {
	lifetime, endsOld := s.of(c).AccessLifetime, s.of(c).RevokeOldAccess
	for i, acc := range accounts {
		token := s.accessToken(c.ID, len(c.Access)+i, acc.ID, id, now, lifetime)
		events = append(events, event{At: now, Issued: &issued{Request: id, Chain: c.ID, Token: token, EndsOld: endsOld}})
	}
	return events
}

// accessToken is the nth access token of a chain.
func (s *Server) accessToken(chain, n int, accountID string, request int, now time.Time, lifetime time.Duration) AccessToken {
	return AccessToken{Fingerprint: FingerprintOf(s.mint.access(chain, n)), AccountID: accountID, IssuedAt: now, IssuedIn: request, ExpiresAt: end(now, lifetime)}
}

// resend answers the chain's newest tokens once more. A new access token takes the place
// of one that has ended.
func (s *Server) resend(id int, c *Chain, now time.Time) (answer, error) {
	i := s.of(c)
	accounts := c.lastAccounts(i)
	if i.RefreshTokenAlone && len(c.Refresh)%2 == 0 {
		accounts = nil
	}
	events := []event{{At: now, Resent: &resent{Request: id, Alone: len(accounts) == 0}}}
	// An answer has one lifetime for all its tokens.
	left := s.leftWith(c)
	if ending(c, accounts, now) || slices.ContainsFunc(left, func(own *Chain) bool { return ending(own, own.Accounts, now) }) {
		events = append(events, s.newAccess(id, c, accounts, now)...)
		for _, own := range left {
			events = append(events, s.newAccess(id, own, own.Accounts, now)...)
		}
	}
	if err := s.record(events...); err != nil {
		return answer{}, err
	}
	return succeeded(s.newest(c, accounts, now, i.DeprecatedAnswer, false)), nil
}

func ending(c *Chain, accounts []Account, now time.Time) bool {
	return slices.ContainsFunc(accounts, func(acc Account) bool {
		n := newestAccess(c, acc)
		// Less than a second would be written as 0, which means unknown.
		return n >= 0 && expired(c.Access[n].ExpiresAt, now.Add(time.Second))
	})
}

// leftWith are the chains that were split off in the refresh that made a chain's current
// refresh token: their tokens belong to the same answer.
func (s *Server) leftWith(c *Chain) []*Chain {
	return slices.DeleteFunc(slices.Clone(s.book.chains), func(own *Chain) bool {
		return own.SplitFrom != c.ID || own.Refresh[0].IssuedIn != c.Current().IssuedIn
	})
}

// challenge asks for an MFA code and issues the interim access token that the second
// request must bring. The refresh token stays unspent.
func (s *Server) challenge(id int, c *Chain, now time.Time) (answer, error) {
	interim := s.mint.access(c.ID, len(c.Access))
	token := s.accessToken(c.ID, len(c.Access), c.Accounts[0].ID, id, now, s.of(c).MFALifetime)
	token.Interim = true
	if err := s.record(event{At: now, Issued: &issued{Request: id, Chain: c.ID, Token: token}}); err != nil {
		return answer{}, err
	}
	body := content{Status: contentMFARequired}
	if s.of(c).DeprecatedAnswer {
		body.AccessToken = interim
	} else {
		body.BrokerAccountTokens = []accountTokens{{Account: new(wireAccount(c.Accounts[0])), AccessToken: interim}}
	}
	return answerOf(contentMFARequired, http.StatusOK, envelope{Status: StatusOK, Content: &body}).on(OnRefresh), nil
}

// wrongCode returns why the second request of the MFA flow is refused, "" if it is not.
func (s *Server) wrongCode(c *Chain, i Institution, q refreshRequest, now time.Time) string {
	interim, ok := s.interim(c, q.AccessToken)
	switch {
	case !ok:
		return "the access token is not that of the first answer"
	case expired(interim.ExpiresAt, now):
		return "the MFA code has expired"
	case !q.MFACode.Equal(secret.New(i.MFACode)):
		return "the MFA code is wrong"
	}
	return ""
}

func (s *Server) die(id int, c *Chain, why string, now time.Time) (answer, error) {
	if err := s.record(event{At: now, Died: &died{Request: id, Chain: c.ID, Why: why}}); err != nil {
		return answer{}, err
	}
	return failed(why), nil
}

func (s *Server) newest(c *Chain, accounts []Account, now time.Time, deprecatedOnly, omitRefresh bool) content {
	form := s.of(c).LifetimeForm
	refresh := s.mint.refresh(c.ID, len(c.Refresh)-1)
	body := content{Status: contentSucceeded, RefreshTokenExpiresInSeconds: lifetimeUntil(c.Current().ExpiresAt, now, form)}
	if omitRefresh {
		refresh, body.RefreshTokenExpiresInSeconds = secret.Text{}, nil
	}
	if len(accounts) == 0 { // a refresh token alone
		a := wireAccount(c.Accounts[0])
		body.BrokerAccountTokens = []accountTokens{{Account: &a, RefreshToken: refresh}}
	}
	for _, acc := range accounts {
		n := newestAccess(c, acc)
		if n < 0 {
			continue
		}
		access, a := s.mint.access(c.ID, n), new(wireAccount(acc))
		if acc.ID == "" {
			a = nil
		}
		body.ExpiresInSeconds = lifetimeUntil(c.Access[n].ExpiresAt, now, form)
		if deprecatedOnly {
			body.Account, body.AccessToken, body.RefreshToken = a, access, refresh
			break
		}
		body.BrokerAccountTokens = append(body.BrokerAccountTokens, accountTokens{
			Account: a, AccessToken: access, RefreshToken: refresh, TokenID: s.tokenID(c, acc),
		})
	}
	for _, own := range s.leftWith(c) {
		body.BrokerAccountTokens = append(body.BrokerAccountTokens, s.newest(own, own.Accounts, now, false, false).BrokerAccountTokens...)
	}
	return body
}

// tokenID is the stable handle of an account whose connect brought one: its first
// access token. nil: it has none.
func (s *Server) tokenID(c *Chain, acc Account) *secret.Text {
	first := slices.IndexFunc(c.Access, func(t AccessToken) bool { return t.AccountID == acc.ID && !t.Interim })
	if !c.TokenIDs || first < 0 {
		return nil
	}
	return new(s.mint.access(c.ID, first))
}

// holds reports whether an access token is one of the chain's, alive or not.
func (s *Server) holds(c *Chain, token *secret.Text) bool {
	if token == nil {
		return false
	}
	at, ok := s.book.access[FingerprintOf(*token)]
	return ok && at.chain == c.ID
}

func (s *Server) interim(c *Chain, token *secret.Text) (AccessToken, bool) {
	if !s.holds(c, token) {
		return AccessToken{}, false
	}
	t := c.Access[s.book.access[FingerprintOf(*token)].index]
	return t, t.Interim && t.KilledAt.IsZero()
}

// newestAccess is the index of an account's newest access token; -1: it has none.
func newestAccess(c *Chain, acc Account) int {
	return lastIndex(c.Access, func(t AccessToken) bool { return (t.AccountID == acc.ID || t.AccountID == "") && !t.Interim })
}

func lastIndex[T any](list []T, match func(T) bool) int {
	for i, v := range slices.Backward(list) {
		if match(v) {
			return i
		}
	}
	return -1
}

func failed(why string) answer {
	return answerOf(contentFailed+": "+why, http.StatusOK,
		envelope{Status: StatusOK, Content: &content{Status: contentFailed, ErrorMessage: &why}}).on(OnRefusal)
}

func succeeded(c content) answer {
	return answerOf(contentSucceeded, http.StatusOK, envelope{Status: StatusOK, Content: &c}).on(OnTokens)
}

func badRequest(why string) answer {
	return answerOf(fmt.Sprintf("%s: %s", StatusBadRequest, why), http.StatusBadRequest,
		envelope{Status: StatusBadRequest, Message: &why, DisplayMessage: new("Something is wrong with the request."), ErrorType: new("invalidField")})
}

func (a answer) on(o Occasion) answer {
	a.occasion = o
	return a
}
