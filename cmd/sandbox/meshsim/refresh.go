package meshsim

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/latchkey/latchkey/events/secret"
)

// serveRefresh is POST /api/v1/token/refresh.
func (s *Server) serveRefresh(w http.ResponseWriter, r *http.Request) {
	var q refreshRequest
	err := readJSON(w, r, &q)
	s.exchange(w, r, Request{Operation: OpRefresh, BrokerType: q.Type, Token: FingerprintOf(q.RefreshToken)},
		func(id int, a Action) (answer, error) {
			switch {
			case err != nil:
				return badRequest("the body is not the JSON object that is expected"), nil
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
	switch {
	case c.BrokerType != q.Type:
		return badRequest("the refresh token is of another type of broker"), nil
	case c.Institution.NeedsAccessToken && !s.holds(c, q.AccessToken):
		return badRequest("accessToken is required by this broker"), nil
	}
	token := c.Refresh[at.index]
	replaced := !token.ReplacedAt.IsZero()
	grace := replaced && c.Alive() && at.index == len(c.Refresh)-2 && now.Sub(token.ReplacedAt) < c.Institution.Grace
	if err := s.record(event{At: now, Reached: &reached{Request: id, Replaced: replaced, WithinGrace: grace}}); err != nil {
		return answer{}, err
	}
	switch {
	case !c.Alive():
		return failed(c.DeadBecause), nil
	case replaced && !grace && c.Institution.TolerateReuse:
		return failed("the refresh token was replaced"), nil
	case replaced && !grace:
		return s.die(id, c, DeadByReuse, now)
	case expired(c.Current().ExpiresAt, now):
		return s.die(id, c, DeadByExpiry, now)
	}
	if code := c.Institution.MFACode; code != "" {
		if q.MFACode == nil || q.MFACode.Empty() {
			return s.challenge(id, c, now)
		}
		if !q.MFACode.Equal(secret.New(code)) || !s.holdsInterim(c, q.AccessToken) {
			return failed("the MFA code or its access token is wrong"), nil
		}
	}
	if replaced && a.Kind == KindOmitRefreshToken {
		a = Normal() // the client would keep the replaced token
	}
	if grace && c.Institution.GraceMode == GraceNewest {
		return s.resend(id, c, a, now)
	}
	return s.issue(id, c, q, a, replaced, now)
}

// issue makes new access tokens and, where due, a new refresh token. A client that
// presented a replaced one is always told the current one.
func (s *Server) issue(id int, c *Chain, q refreshRequest, a Action, replaced bool, now time.Time) (answer, error) {
	events := s.newAccess(id, c, a, now)
	rotate := c.Institution.Rotation == RotateAlways ||
		c.Institution.Rotation == RotateOnRequest && q.CreateNewRefreshToken != nil && *q.CreateNewRefreshToken
	if rotate && a.Kind != KindOmitRefreshToken {
		events = append(events, event{At: now, Rotated: &rotated{Request: id, Chain: c.ID, Next: RefreshToken{
			Fingerprint: FingerprintOf(s.mint.refresh(c.ID, len(c.Refresh))),
			IssuedAt:    now, IssuedIn: id, ExpiresAt: end(now, c.Institution.RefreshLifetime),
		}}})
	} else {
		rotate = false
	}
	if err := s.record(events...); err != nil {
		return answer{}, err
	}
	omit := !rotate && !replaced && (c.Institution.OmitKeptRefreshToken || a.Kind == KindOmitRefreshToken)
	return succeeded(s.newest(c, now, deprecated(c, a), omit)), nil
}

// newAccess makes new access tokens of the accounts that an answer speaks of.
func (s *Server) newAccess(id int, c *Chain, a Action, now time.Time) (events []event) {
	accounts := c.Accounts
	if deprecated(c, a) {
		accounts = accounts[:1]
	}
	for i, acc := range accounts {
		events = append(events, event{At: now, Issued: &issued{Request: id, Chain: c.ID, Token: AccessToken{
			Fingerprint: FingerprintOf(s.mint.access(c.ID, len(c.Access)+i)), AccountID: acc.ID,
			IssuedAt: now, IssuedIn: id, ExpiresAt: end(now, c.Institution.AccessLifetime),
		}}})
	}
	return events
}

// resend answers the chain's newest tokens once more, but no access token that has
// ended: a new one takes its place.
func (s *Server) resend(id int, c *Chain, a Action, now time.Time) (answer, error) {
	events := []event{{At: now, Resent: &resent{Request: id}}}
	if slices.ContainsFunc(c.Accounts, func(acc Account) bool {
		n := newestAccess(c, acc)
		return n >= 0 && expired(c.Access[n].ExpiresAt, now.Add(leastTold))
	}) {
		events = append(events, s.newAccess(id, c, a, now)...)
	}
	if err := s.record(events...); err != nil {
		return answer{}, err
	}
	return succeeded(s.newest(c, now, deprecated(c, a), false)), nil
}

// leastTold is the shortest lifetime that an answer can tell: 0 tells nothing.
const leastTold = time.Second

// challenge asks for an MFA code and issues the interim access token that the
// second request must bring. The refresh token stays unspent.
func (s *Server) challenge(id int, c *Chain, now time.Time) (answer, error) {
	interim := s.mint.access(c.ID, len(c.Access))
	err := s.record(event{At: now, Issued: &issued{Request: id, Chain: c.ID, Token: AccessToken{
		Fingerprint: FingerprintOf(interim), AccountID: c.Accounts[0].ID, IssuedAt: now, IssuedIn: id, Interim: true,
	}}})
	if err != nil {
		return answer{}, err
	}
	body := content{Status: contentMFARequired}
	if c.Institution.DeprecatedAnswer {
		body.AccessToken = interim
	} else {
		body.BrokerAccountTokens = []accountTokens{{Account: wireAccount(c.Accounts[0]), AccessToken: interim}}
	}
	return answerOf(contentMFARequired, http.StatusOK, envelope{Status: StatusOK, Content: &body}), nil
}

// die ends a chain and says so.
func (s *Server) die(id int, c *Chain, why string, now time.Time) (answer, error) {
	if err := s.record(event{At: now, Died: &died{Request: id, Chain: c.ID, Why: why}}); err != nil {
		return answer{}, err
	}
	return failed(why), nil
}

// newest makes the content that holds a chain's newest tokens.
func (s *Server) newest(c *Chain, now time.Time, deprecatedOnly, omitRefresh bool) content {
	form := c.Institution.LifetimeForm
	refresh := s.mint.refresh(c.ID, len(c.Refresh)-1)
	body := content{Status: contentSucceeded, RefreshTokenExpiresInSeconds: lifetimeUntil(c.Current().ExpiresAt, now, form)}
	if omitRefresh {
		refresh, body.RefreshTokenExpiresInSeconds = secret.Text{}, nil
	}
	for _, acc := range c.Accounts {
		n := newestAccess(c, acc)
		if n < 0 {
			continue
		}
		access, a := s.mint.access(c.ID, n), wireAccount(acc)
		body.ExpiresInSeconds = lifetimeUntil(c.Access[n].ExpiresAt, now, form)
		if deprecatedOnly {
			body.Account, body.AccessToken, body.RefreshToken = &a, access, refresh
			break
		}
		body.BrokerAccountTokens = append(body.BrokerAccountTokens, accountTokens{
			Account: a, AccessToken: access, RefreshToken: refresh, TokenID: new(tokenID(c.ID, acc.ID)),
		})
	}
	return body
}

func deprecated(c *Chain, a Action) bool {
	return c.Institution.DeprecatedAnswer || a.Kind == KindDeprecated
}

// holds tells whether an access token is one of the chain's, living or not.
func (s *Server) holds(c *Chain, token *secret.Text) bool {
	if token == nil {
		return false
	}
	at, ok := s.book.access[FingerprintOf(*token)]
	return ok && at.chain == c.ID
}

// holdsInterim tells whether an access token is an unused interim one of the chain.
func (s *Server) holdsInterim(c *Chain, token *secret.Text) bool {
	if !s.holds(c, token) {
		return false
	}
	t := c.Access[s.book.access[FingerprintOf(*token)].index]
	return t.Interim && t.KilledAt.IsZero()
}

// newestAccess is the place of an account's newest access token; -1: it has none.
func newestAccess(c *Chain, acc Account) int {
	return lastIndex(c.Access, func(t AccessToken) bool { return t.AccountID == acc.ID && !t.Interim })
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
		envelope{Status: StatusOK, Content: &content{Status: contentFailed, ErrorMessage: &why}})
}

func succeeded(c content) answer {
	return answerOf(contentSucceeded, http.StatusOK, envelope{Status: StatusOK, Content: &c})
}

func badRequest(why string) answer {
	return answerOf(fmt.Sprintf("%s: %s", StatusBadRequest, why), http.StatusBadRequest,
		envelope{Status: StatusBadRequest, Message: &why, DisplayMessage: new("Something is wrong with the request.")})
}
