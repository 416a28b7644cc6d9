package events

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"strings"
	"time"

	"github.com/latchkey/latchkey/events/secret"
)

// maxLifetime caps what a payload may claim as a lifetime; more is treated as
// this much, so that no arithmetic overflows.
const maxLifetime = 100 * 365 * 24 * time.Hour

// Seconds is a lifetime as Mesh states it. Null, 0 and absent mean "does not
// expire, or not known".
type Seconds float64

// Duration returns the lifetime in whole seconds, 0 for none. What is shorter
// than a second counts as one: 0 would make it last for ever.
func (s Seconds) Duration() time.Duration {
	switch {
	case s <= 0:
		return 0
	case float64(s) >= maxLifetime.Seconds():
		return maxLifetime
	}
	return time.Duration(max(1, math.Floor(float64(s)))) * time.Second
}

// Connected is the integration.connected message: what a company's backend
// publishes after Mesh Link's onIntegrationConnected.
type Connected struct {
	// UserID is the company's own id of the user.
	UserID string `json:"userId"`
	// Payload is Mesh's LinkPayload, verbatim but for display names, which are
	// cut at 512 bytes: they go into every event about the grant.
	Payload *LinkPayload `json:"payload"`
	// ConnectedAt is when the tokens were obtained; lifetimes count from it.
	// Zero when neither the body nor the CloudEvents envelope said so.
	ConnectedAt time.Time `json:"connectedAt"`
}

// LinkPayload is what Mesh Link hands to onIntegrationConnected: one of two
// forms (@meshconnect/web-link-sdk 3.13.0, LinkPayload). Fields that Latchkey
// has no use for, such as the brand's logo, are passed over.
type LinkPayload struct {
	AccessToken *AccessTokenPayload `json:"accessToken"`
	DelayedAuth *DelayedAuthPayload `json:"delayedAuth"`
}

// AccessTokenPayload carries access tokens that can be used at once.
type AccessTokenPayload struct {
	AccountTokens                []AccountToken `json:"accountTokens"`
	BrokerType                   string         `json:"brokerType"`
	BrokerName                   string         `json:"brokerName"`
	ExpiresInSeconds             Seconds        `json:"expiresInSeconds"`
	RefreshTokenExpiresInSeconds Seconds        `json:"refreshTokenExpiresInSeconds"`
}

// AccountToken is one account of an AccessTokenPayload.
type AccountToken struct {
	Account      PayloadAccount `json:"account"`
	AccessToken  secret.Text    `json:"accessToken"`
	RefreshToken secret.Text    `json:"refreshToken"`
	TradeToken   secret.Text    `json:"tradeToken"`
	TokenID      secret.Text    `json:"tokenId"`
}

// PayloadAccount names an account at the institution.
type PayloadAccount struct {
	AccountID   string `json:"accountId"`
	AccountName string `json:"accountName"`
}

// DelayedAuthPayload carries a refresh token only: the first refresh yields
// the access tokens.
type DelayedAuthPayload struct {
	RefreshToken                 secret.Text `json:"refreshToken"`
	RefreshTokenExpiresInSeconds Seconds     `json:"refreshTokenExpiresInSeconds"`
	BrokerType                   string      `json:"brokerType"`
	BrokerName                   string      `json:"brokerName"`
}

// DecodeConnected reads an integration.connected message, plain JSON or a
// CloudEvents 1.0 structured message. One that is sealed is refused; see
// DecodeSealedConnected. Every error is an *InvalidError.
func DecodeConnected(body []byte) (Connected, error) {
	data, at, err := unwrap(IntegrationConnected, body)
	if err != nil {
		return Connected{}, err
	}
	return decodeConnected(data, at)
}

// decodeConnected reads the data of a message; at is the time of its envelope.
func decodeConnected(data []byte, at time.Time) (Connected, error) {
	const name = IntegrationConnected
	jwe, err := sealedData(name, data)
	if err != nil {
		return Connected{}, err
	}
	if jwe != "" {
		return Connected{}, invalid(name, "sealed: it must be opened first")
	}
	var c Connected
	if err := decodeStrict(name, data, &c); err != nil {
		return Connected{}, err
	}
	if err := CheckUserID(c.UserID); err != nil {
		return Connected{}, invalid(name, "userId: %v", err)
	}
	if c.ConnectedAt.IsZero() {
		c.ConnectedAt = at
	}
	if err := checkTime(name, "connectedAt", c.ConnectedAt); err != nil {
		return Connected{}, err
	}
	if err := c.Payload.check(); err != nil {
		return Connected{}, err
	}
	c.Payload.cutNames()
	if a := c.Payload.AccessToken; a != nil {
		if err := checkSize(a.AccountTokens); err != nil {
			return Connected{}, err
		}
	}
	return c, nil
}

// checkTime keeps times, and what a lifetime makes of them, within what every
// engine and RFC 3339 can hold (years 1970 to 9999).
func checkTime(message, field string, t time.Time) error {
	if year := t.UTC().Year(); !t.IsZero() && (year < 1970 || year > 9899) {
		return invalid(message, "%s: outside the years 1970 to 9899", field)
	}
	return nil
}

func (p *LinkPayload) check() error {
	const name = IntegrationConnected
	if p == nil || p.AccessToken == nil && p.DelayedAuth == nil {
		return invalid(name, "payload: needs accessToken or delayedAuth")
	}
	if a := p.AccessToken; a != nil {
		if err := checkName(name, "payload.accessToken.brokerType", a.BrokerType); err != nil {
			return err
		}
		if len(a.AccountTokens) == 0 {
			return invalid(name, "payload.accessToken.accountTokens: empty")
		}
		for i, t := range a.AccountTokens {
			if err := checkName(name, "payload.accessToken.accountTokens.account.accountId", t.Account.AccountID); err != nil {
				return err
			}
			if t.AccessToken.Empty() && t.RefreshToken.Empty() {
				return invalid(name, "payload.accessToken.accountTokens.%d: neither accessToken nor refreshToken", i)
			}
		}
		if err := checkLifetimes(a.ExpiresInSeconds, a.RefreshTokenExpiresInSeconds); err != nil {
			return err
		}
	}
	if d := p.DelayedAuth; d != nil {
		if err := checkName(name, "payload.delayedAuth.brokerType", d.BrokerType); err != nil {
			return err
		}
		if d.RefreshToken.Empty() {
			return invalid(name, "payload.delayedAuth.refreshToken: empty")
		}
		if err := checkLifetimes(0, d.RefreshTokenExpiresInSeconds); err != nil {
			return err
		}
	}
	return nil
}

const maxNameBytes = 512

// CutName shortens what only a human reads. Refusing a long name would lose the
// tokens; keeping it could make an event too large for NATS.
func CutName(name string) string {
	if len(name) <= maxNameBytes {
		return name
	}
	return strings.ToValidUTF8(name[:maxNameBytes], "")
}

// BoundedID returns an account id as it is, or, where it is longer than connects
// may have them, a hash that stands for it: it names the account in documents,
// events and replies, and the same id always has the same.
func BoundedID(id string) string {
	if len(id) <= maxNameBytes {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "sha256-" + hex.EncodeToString(sum[:])
}

func (p *LinkPayload) cutNames() {
	if a := p.AccessToken; a != nil {
		a.BrokerName = CutName(a.BrokerName)
		for i := range a.AccountTokens {
			account := &a.AccountTokens[i].Account
			account.AccountName = CutName(account.AccountName)
		}
	}
	if d := p.DelayedAuth; d != nil {
		d.BrokerName = CutName(d.BrokerName)
	}
}

func checkName(message, field, value string) error {
	switch {
	case value == "":
		return invalid(message, "%s: empty", field)
	case len(value) > maxNameBytes:
		return invalid(message, "%s: %d bytes, at most %d", field, len(value), maxNameBytes)
	}
	if r, found := unseen(value); found {
		return invalid(message, "%s: contains the control or formatting character %U", field, r)
	}
	return nil
}

// maxAccountsBytes bounds what an event says of the accounts of a grant, so that
// with all else it fits into a NATS message of 1 MB. A grant whose events can't be
// published would be tried again for ever.
const maxAccountsBytes = 512 << 10

// checkSize holds the accounts of a payload against maxAccountsBytes, in the form
// in which an event holds them.
func checkSize(tokens []AccountToken) error {
	accounts := make([]Account, len(tokens))
	for i, t := range tokens {
		accounts[i] = Account{AccountID: t.Account.AccountID, AccountName: t.Account.AccountName}
	}
	encoded, err := json.Marshal(accounts)
	if err != nil || len(encoded) > maxAccountsBytes {
		return invalid(IntegrationConnected, "payload.accessToken.accountTokens: too many accounts: their ids and names take %d bytes in an event, at most %d", len(encoded), maxAccountsBytes)
	}
	return nil
}

func checkLifetimes(lifetimes ...Seconds) error {
	for _, s := range lifetimes {
		if s < 0 {
			return invalid(IntegrationConnected, "a lifetime in seconds is negative")
		}
	}
	return nil
}
