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

func (s *Server) routeHoldings() {
	s.mux.HandleFunc("POST /api/v1/holdings/get", s.guarded(s.serveHoldings))
	s.mux.HandleFunc("POST /api/v1/holdings/value", s.guarded(s.serveHoldingsValue))
	s.mux.HandleFunc("GET /api/v1/holdings/portfolio", s.guarded(s.servePortfolio))
	s.mux.HandleFunc("POST /api/v1/balance/get", s.guarded(s.serveBalance))
	s.mux.HandleFunc("GET /api/v1/balance/portfolio", s.guarded(s.serveFiatPortfolio))
}

type holdingsRequest struct {
	AuthToken secret.Text `json:"authToken"`
	Type      string      `json:"type"`
}

type holdings struct {
	Status                  string     `json:"status"`
	Type                    string     `json:"type"`
	AccountID               string     `json:"accountId"`
	AccountName             string     `json:"accountName"`
	InstitutionName         string     `json:"institutionName"`
	CryptocurrencyPositions []position `json:"cryptocurrencyPositions"`
}

type position struct {
	Name   string  `json:"name"`
	Symbol string  `json:"symbol"`
	Amount float64 `json:"amount"`
}

func (s *Server) serveHoldings(w http.ResponseWriter, r *http.Request) {
	c, acc, given := s.opened(w, r)
	if !given {
		return
	}
	tell(w, ok(holdings{
		Status: contentSucceeded, Type: c.BrokerType, AccountID: acc.ID, AccountName: acc.Name, InstitutionName: c.BrokerName,
		CryptocurrencyPositions: []position{{"Bitcoin", "BTC", bitcoins}},
	}))
}

func (s *Server) serveHoldingsValue(w http.ResponseWriter, r *http.Request) {
	if _, _, given := s.opened(w, r); given {
		tell(w, ok(map[string]float64{"totalValue": bitcoins * bitcoinPrice}))
	}
}

// opened returns the account that a request's access token or tokenId opens, or answers
// 401, as Mesh's guide says.
func (s *Server) opened(w http.ResponseWriter, r *http.Request) (c Chain, acc Account, given bool) {
	var q holdingsRequest
	if readJSON(w, r, &q) != nil || q.AuthToken.Empty() || q.Type == "" {
		tell(w, badRequest("authToken and type are required"))
		return Chain{}, Account{}, false
	}
	if c, acc, given = s.open(q); !given {
		tell(w, problem(http.StatusUnauthorized))
	}
	return c, acc, given
}

func (s *Server) open(q holdingsRequest) (c Chain, acc Account, given bool) {
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

// portfolio is B2BPortfolioModel.
type portfolio struct {
	EquitiesValue           float64             `json:"equitiesValue"`
	CryptocurrenciesValue   float64             `json:"cryptocurrenciesValue"`
	NFTsValue               float64             `json:"nftsValue"`
	CryptocurrencyPositions []portfolioPosition `json:"cryptocurrencyPositions"`
}

// portfolioPosition is PositionWithReturn.
type portfolioPosition struct {
	position
	MarketValue         float64 `json:"marketValue"`
	LastPrice           float64 `json:"lastPrice"`
	PortfolioPercentage float64 `json:"portfolioPercentage"`
}

// servePortfolio answers what one account holds, for any user: the simulator does not
// know whose its accounts are.
func (s *Server) servePortfolio(w http.ResponseWriter, r *http.Request) {
	// Mesh's servers ignore the case of UserId.
	user := cmp.Or(r.URL.Query().Get("UserId"), r.URL.Query().Get("userId"))
	if user == "" || utf8.RuneCountInString(user) > maxUserID {
		tell(w, badRequest("UserId is required, with 300 characters at most"))
		return
	}
	const value = bitcoins * bitcoinPrice
	tell(w, ok(portfolio{
		CryptocurrenciesValue:   value,
		CryptocurrencyPositions: []portfolioPosition{{position{"Bitcoin", "BTC", bitcoins}, value, bitcoinPrice, 100}},
	}))
}

// balances is B2BBrokerAccountBalanceModel.
type balances struct {
	Balances                 []balance `json:"balances"`
	TotalCashUSDValue        float64   `json:"totalCashUsdValue"`
	TotalBuyingPowerUSDValue float64   `json:"totalBuyingPowerUsdValue"`
}

type balance struct {
	Cash         float64 `json:"cash"`
	BuyingPower  float64 `json:"buyingPower"`
	CurrencyCode string  `json:"currencyCode"`
}

// serveBalance answers the cash and the buying power of the connection.
func (s *Server) serveBalance(w http.ResponseWriter, r *http.Request) {
	_, acc, given := s.opened(w, r)
	if !given {
		return
	}
	cash, fund := usualCash+0.0, usualFund+0.0
	if acc.Cash != nil {
		cash, fund = *acc.Cash, *acc.Cash
	}
	if acc.Fund != nil {
		fund = *acc.Fund
	}
	tell(w, ok(balances{[]balance{{cash, fund, "USD"}}, cash, fund}))
}

// fiatPortfolio is B2BFiatPortfolioModel.
type fiatPortfolio struct {
	FiatBalances []fiatBalance `json:"fiatBalances"`
}

type fiatBalance struct {
	Symbol      string  `json:"symbol"`
	Cash        float64 `json:"cash"`
	BuyingPower float64 `json:"buyingPower"`
}

// serveFiatPortfolio answers what one account has, with or without a user.
func (s *Server) serveFiatPortfolio(w http.ResponseWriter, _ *http.Request) {
	tell(w, ok(fiatPortfolio{[]fiatBalance{{"USD", usualCash, usualFund}}}))
}
