package meshsim

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/latchkey/latchkey/events/secret"
)

const TypicalLogoBytes = 32 << 10

type ConnectSpec struct {
	BrokerType string    `json:"brokerType"`
	BrokerName string    `json:"brokerName,omitzero"` // BrokerType unless set
	Accounts   []Account `json:"accounts,omitzero"`   // one invented account when empty
	// SeparateRefreshTokens gives each account a refresh token, and so a chain, of its
	// own; otherwise all share one.
	SeparateRefreshTokens bool `json:"separateRefreshTokens,omitzero"`
	Delayed               bool `json:"delayed,omitzero"`        // the delayedAuth form: a refresh token and nothing else
	NoRefreshToken        bool `json:"noRefreshToken,omitzero"` // access tokens only
	WithTokenIDs          bool `json:"withTokenIds,omitzero"`   // a tokenId for each account: the same as its access token
	LogoBytes             int  `json:"logoBytes,omitzero"`      // size of the base64 brand logo; see [TypicalLogoBytes]
	// Again hands over the newest tokens of connected accounts once more, as when two
	// payloads come of one login.
	Again       bool         `json:"again,omitzero"`
	Institution *Institution `json:"institution,omitzero"` // overrides how the chain behaves
}

type Connection struct {
	// Payload is the JSON text that the browser hands over, tokens and all.
	Payload  secret.Text
	Accounts []ConnectedAccount
}

type ConnectedAccount struct {
	AccountID    string      `json:"accountId"`
	Chain        int         `json:"chain"`
	AccessToken  secret.Text `json:"accessToken"` // empty in the delayed form
	RefreshToken secret.Text `json:"refreshToken"`
}

// Connect issues tokens for a new connection. Accounts that were connected before get a
// new chain; the old one lives on.
func (s *Server) Connect(spec ConnectSpec) (Connection, error) {
	if spec.BrokerType == "" {
		return Connection{}, errors.New("a connection needs a broker type")
	}
	if spec.Delayed && (spec.SeparateRefreshTokens || spec.NoRefreshToken) {
		return Connection{}, errors.New("the delayed form holds exactly one refresh token")
	}
	spec.BrokerName = cmp.Or(spec.BrokerName, spec.BrokerType)
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.institution(spec)
	if _, err := speechOf(own.Dialects...); err != nil {
		return Connection{}, fmt.Errorf("connect: %w", err)
	}
	i := s.speech(spec.BrokerType, own).behaviour(own)
	if i.ManagedTokens {
		spec.WithTokenIDs, spec.NoRefreshToken = true, true
	}
	if spec.Again {
		return s.connectAgain(spec)
	}
	now := s.cfg.Clock()
	first := len(s.book.chains) + 1
	accounts := slices.Clone(spec.Accounts)
	if len(accounts) == 0 {
		accounts = []Account{{ID: fmt.Sprintf("account-%d", first), Name: "Account"}}
	}
	for i := range accounts {
		accounts[i].ID = cmp.Or(accounts[i].ID, fmt.Sprintf("account-%d-%d", first, i+1))
		if _, known := s.book.byAccount[accounts[i].ID]; known && accounts[i].IsReconnected == nil {
			accounts[i].IsReconnected = new(true)
		}
	}
	groups := [][]Account{accounts}
	if spec.SeparateRefreshTokens {
		groups = slices.Collect(slices.Chunk(accounts, 1))
	}
	var (
		events []event
		out    Connection
	)
	for i, group := range groups {
		c := s.newChain(first+i, spec, group, now)
		events = append(events, event{At: now, Connected: &c})
		for n, a := range group {
			issued := ConnectedAccount{AccountID: a.ID, Chain: c.ID}
			if !spec.NoRefreshToken {
				issued.RefreshToken = s.mint.refresh(c.ID, 0)
			}
			if !spec.Delayed {
				issued.AccessToken = s.mint.access(c.ID, n)
			}
			out.Accounts = append(out.Accounts, issued)
		}
	}
	var err error
	if out.Payload, err = s.payload(spec, accounts, out.Accounts, *events[0].Connected, now); err != nil {
		return Connection{}, err
	}
	if err := s.record(events...); err != nil {
		return Connection{}, fmt.Errorf("connect: %w", err)
	}
	return out, nil
}

// connectAgain hands over the tokens that accounts have. The caller holds the lock.
func (s *Server) connectAgain(spec ConnectSpec) (out Connection, err error) {
	if len(spec.Accounts) == 0 {
		return Connection{}, errors.New("a connection that is handed over again needs its accounts")
	}
	for _, a := range spec.Accounts {
		c, ok := s.book.byAccount[a.ID]
		if !ok || c.BrokerType != spec.BrokerType {
			return Connection{}, fmt.Errorf("no account %q at the simulator's %s", a.ID, spec.BrokerType)
		}
		issued := ConnectedAccount{AccountID: a.ID, Chain: c.ID}
		if !spec.NoRefreshToken {
			issued.RefreshToken = s.mint.refresh(c.ID, len(c.Refresh)-1)
		}
		if n := newestAccess(c, a); n >= 0 && !spec.Delayed {
			issued.AccessToken = s.mint.access(c.ID, n)
		}
		out.Accounts = append(out.Accounts, issued)
	}
	first := *s.book.byAccount[spec.Accounts[0].ID]
	out.Payload, err = s.payload(spec, spec.Accounts, out.Accounts, first, s.cfg.Clock())
	return out, err
}

func (s *Server) institution(spec ConnectSpec) Institution {
	if spec.Institution != nil {
		return *spec.Institution
	}
	if i, ok := s.cfg.Institutions[spec.BrokerType]; ok {
		return i
	}
	return DefaultInstitution(spec.BrokerType)
}

func (s *Server) newChain(id int, spec ConnectSpec, accounts []Account, now time.Time) Chain {
	own := s.institution(spec)
	i := s.speech(spec.BrokerType, own).behaviour(own)
	if i.ManagedTokens {
		i.AccessLifetime = 0
	}
	c := Chain{
		ID: id, BrokerType: spec.BrokerType, BrokerName: spec.BrokerName, Accounts: accounts, Institution: own, ConnectedAt: now, TokenIDs: spec.WithTokenIDs,
		Refresh: []RefreshToken{{Fingerprint: FingerprintOf(s.mint.refresh(id, 0)), IssuedAt: now, ExpiresAt: end(now, i.RefreshLifetime)}},
	}
	if spec.Delayed {
		return c
	}
	for n, a := range accounts {
		c.Access = append(c.Access, s.accessToken(id, n, a.ID, 0, now, i.AccessLifetime))
	}
	return c
}

// payload makes the browser's payload of a connection whose first chain is c, in the
// dialects that are spoken.
func (s *Server) payload(spec ConnectSpec, accounts []Account, tokens []ConnectedAccount, c Chain, now time.Time) (secret.Text, error) {
	body, err := onTheWire(s.linkPayload(spec, accounts, tokens, c, now))
	if err != nil {
		return secret.Text{}, fmt.Errorf("encode a connection: %w", err)
	}
	said := s.speech(spec.BrokerType, s.institution(spec)).say(answer{occasion: OnConnect, body: body}, "")
	return secret.New(string(said.body)), nil
}

func (s *Server) linkPayload(spec ConnectSpec, accounts []Account, tokens []ConnectedAccount, c Chain, now time.Time) linkPayload {
	i := s.of(&c)
	form := &linkForm{
		BrokerType: spec.BrokerType, BrokerName: spec.BrokerName,
		BrokerBrandInfo: brandInfo{BrokerLogo: s.logo(spec), LogoLightURL: "https://brand.example/light.svg", LogoDarkURL: "https://brand.example/dark.svg"},
	}
	if !spec.NoRefreshToken {
		form.RefreshTokenExpiresInSeconds = lifetimeUntil(c.Current().ExpiresAt, now, i.LifetimeForm)
	}
	if spec.Delayed {
		form.RefreshToken = tokens[0].RefreshToken
		return linkPayload{DelayedAuth: form}
	}
	form.ExpiresInSeconds = lifetimeUntil(c.Access[0].ExpiresAt, now, i.LifetimeForm)
	for n, a := range accounts {
		t := linkAccountToken{Account: linkAccount(wireAccount(a)), AccessToken: tokens[n].AccessToken, RefreshToken: tokens[n].RefreshToken}
		if spec.WithTokenIDs {
			t.TokenID = tokens[n].AccessToken
		}
		if i.NeedsTradeToken {
			t.TradeToken = s.mint.trade(tokens[n].Chain)
		}
		form.AccountTokens = append(form.AccountTokens, t)
	}
	return linkPayload{AccessToken: form}
}

// logo returns noise of the given size, the same for the same broker.
func (s *Server) logo(spec ConnectSpec) string {
	raw := make([]byte, 0, spec.LogoBytes)
	for n := 0; len(raw) < spec.LogoBytes*3/4; n++ {
		raw = append(raw, s.mint.derive("logo", fmt.Sprint(spec.BrokerType, n)).Reveal()...)
	}
	return base64.StdEncoding.EncodeToString(raw[:spec.LogoBytes*3/4])
}

func wireAccount(a Account) account {
	return account{AccountID: a.ID, AccountName: a.Name, Fund: a.Fund, Cash: a.Cash, IsReconnected: a.IsReconnected}
}

// end returns when a lifetime ends; one of 0 never does, which is the zero time.
func end(now time.Time, lifetime time.Duration) time.Time {
	if lifetime == 0 {
		return time.Time{}
	}
	return now.Add(lifetime)
}
