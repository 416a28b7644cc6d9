package meshsim

import (
	"cmp"
	"net/http"
	"slices"
	"unicode/utf8"

	"github.com/latchkey/latchkey/events/secret"
)

const (
	bitcoins     = 0.5 // of every account
	bitcoinPrice = 62000
	// In US dollars, unless a connection says something else.
	usualCash = 1000
	usualFund = 1500
)

type holdingsRequest struct {
	AuthToken secret.Text `json:"authToken"`
	Type      string      `json:"type"`
}

func (s *Server) serveHoldings(w http.ResponseWriter, r *http.Request) {
	c, acc, found := s.openAccount(w, r)
	if !found {
		return
	}
	writeAnswer(w, ok(map[string]any{
		"status": contentSucceeded, "type": c.BrokerType, "accountId": acc.ID, "accountName": acc.Name, "institutionName": c.BrokerName,
		"cryptocurrencyPositions": []map[string]any{{"name": "Bitcoin", "symbol": "BTC", "amount": bitcoins}},
	}))
}

func (s *Server) serveHoldingsValue(w http.ResponseWriter, r *http.Request) {
	if _, _, found := s.openAccount(w, r); found {
		writeAnswer(w, ok(map[string]float64{"totalValue": bitcoins * bitcoinPrice}))
	}
}

// openAccount returns the account that a request's access token or tokenId opens, or answers
// 401, as Mesh's guide says.
func (s *Server) openAccount(w http.ResponseWriter, r *http.Request) (c Chain, acc Account, found bool) {
	var q holdingsRequest
	if readJSON(w, r, &q) != nil || q.AuthToken.Empty() || q.Type == "" {
		writeAnswer(w, badRequest("authToken and type are required"))
		return Chain{}, Account{}, false
	}
	if c, acc, found = s.open(q); !found {
		writeAnswer(w, problem(http.StatusUnauthorized))
	}
	return c, acc, found
}

func (s *Server) open(q holdingsRequest) (c Chain, acc Account, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, known := s.book.access[FingerprintOf(q.AuthToken)]
	if !known {
		return Chain{}, Account{}, false
	}
	c = *s.book.chains[at.chain-1]
	token := c.Access[at.index]
	n := slices.IndexFunc(c.Accounts, func(a Account) bool { return a.ID == token.AccountID || token.AccountID == "" })
	if n < 0 || c.BrokerType != q.Type {
		return Chain{}, Account{}, false
	}
	acc = c.Accounts[n]
	valid, _ := token.state(s.cfg.Clock())
	handle := s.tokenID(&c, acc)
	return c, acc, valid || c.Alive() && handle != nil && handle.Equal(q.AuthToken)
}

// servePortfolio answers what one account holds (B2BPortfolioModel), for any user: the
// simulator does not know whose its accounts are.
func (s *Server) servePortfolio(w http.ResponseWriter, r *http.Request) {
	// Mesh's servers ignore the case of UserId.
	user := cmp.Or(r.URL.Query().Get("UserId"), r.URL.Query().Get("userId"))
	if user == "" || utf8.RuneCountInString(user) > maxUserID {
		writeAnswer(w, badRequest("UserId is required, with 300 characters at most"))
		return
	}
	const value = bitcoins * bitcoinPrice
	writeAnswer(w, ok(map[string]any{
		"equitiesValue": 0, "cryptocurrenciesValue": value, "nftsValue": 0,
		"cryptocurrencyPositions": []map[string]any{{
			"name": "Bitcoin", "symbol": "BTC", "amount": bitcoins, "marketValue": value, "lastPrice": bitcoinPrice, "portfolioPercentage": 100,
		}},
	}))
}

type balance struct {
	Cash         float64 `json:"cash"`
	BuyingPower  float64 `json:"buyingPower"`
	CurrencyCode string  `json:"currencyCode"`
}

// serveBalance answers the cash and the buying power of the connection
// (B2BBrokerAccountBalanceModel).
func (s *Server) serveBalance(w http.ResponseWriter, r *http.Request) {
	_, acc, found := s.openAccount(w, r)
	if !found {
		return
	}
	cash, fund := usualCash+0.0, usualFund+0.0
	if acc.Cash != nil {
		cash, fund = *acc.Cash, *acc.Cash
	}
	if acc.Fund != nil {
		fund = *acc.Fund
	}
	writeAnswer(w, ok(map[string]any{"balances": []balance{{cash, fund, "USD"}}, "totalCashUsdValue": cash, "totalBuyingPowerUsdValue": fund}))
}

// serveFiatPortfolio answers what one account has (B2BFiatPortfolioModel), with or
// without a user.
func (s *Server) serveFiatPortfolio(w http.ResponseWriter, _ *http.Request) {
	writeAnswer(w, ok(map[string]any{"fiatBalances": []map[string]any{{"symbol": "USD", "cash": usualCash, "buyingPower": usualFund}}}))
}
