package events

import (
	"crypto/sha256"
	"encoding/hex"
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
	// Payload is what can be kept of Mesh's LinkPayload. Display names are cut at
	// 512 bytes: they go into every event about the grant.
	Payload *LinkPayload `json:"payload"`
	// ConnectedAt is when the tokens were obtained; lifetimes count from it.
	// Zero when neither the body nor the CloudEvents envelope said so.
	ConnectedAt time.Time `json:"connectedAt"`
	// Labels are the publisher's own, to be found again with the grants: at most 8,
	// with names of up to 64 letters, digits, hyphens and underscores, and
	// values of up to 256 bytes.
	Labels map[string]string `json:"labels"`
	// Metadata goes along with each refresh of the grants (@meshconnect/node-api 2.0.28,
	// RefreshTokenRequest.metadata), where Mesh has told the publisher that an
	// institution needs some: at most 16, with names as of labels and values of up to
	// 1,024 bytes. It is sealed with the tokens.
	Metadata map[string]secret.Text `json:"metadata"`
	// LeftOut tells of what was not usable, by the names of fields and rules and
	// without a value.
	LeftOut []string `json:"-"`
	// Published is when NATS took the message in, which no message says itself. Zero:
	// not known.
	Published time.Time `json:"-"`
}

// Empty reports whether a message brings no token: there is nothing to keep.
func (c *Connected) Empty() bool { return c.Payload.AccessToken == nil && c.Payload.DelayedAuth == nil }

// LinkPayload is what Mesh Link hands to onIntegrationConnected: one of two
// forms (@meshconnect/web-link-sdk 3.13.0, LinkPayload). A payload may also be the
// bare object of either form, as the iOS, Android and Flutter SDKs have it. Fields
// that Latchkey has no use for, such as the brand's logo, are passed over.
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

// PayloadAccount names an account at the institution. Without an id the tokens beside
// it are those of the accounts with the same refresh token, or of accounts that are not
// known until a refresh names them.
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

// DecodeConnected reads an integration.connected message that is not sealed, plain
// JSON or a CloudEvents 1.0 structured message; see UnwrapConnected. Every error is
// an *InvalidError.
func DecodeConnected(body []byte) (Connected, error) {
	m, err := UnwrapConnected(nil, body)
	if err != nil {
		return Connected{}, err
	}
	return m.Decode()
}

// checkTime keeps times, and what a lifetime makes of them, within what every
// engine and RFC 3339 can hold (years 1970 to 9999).
func checkTime(message, field string, t time.Time) error {
	if !t.IsZero() && !validTime(t) {
		return invalid(message, "%s: %s", field, problemYears)
	}
	return nil
}

const problemYears = "outside the years 1970 to 9899"

func validTime(t time.Time) bool {
	year := t.UTC().Year()
	return 1970 <= year && year <= 9899
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
