package events

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"strings"
	"time"

	"github.com/latchkey/latchkey/events/secret"
)

// maxLifetime replaces longer lifetimes, so that no arithmetic overflows.
const maxLifetime = 100 * 365 * 24 * time.Hour

// Seconds is a lifetime as Mesh states it. Null, 0 and absent mean "does not
// expire, or not known".
type Seconds float64

// Duration returns the lifetime in whole seconds, 0 for none. A fraction of a second
// counts as one second: 0 would mean no end.
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
	// Payload is the usable part of Mesh's LinkPayload. Display names are cut at 512
	// bytes, because every event about the grant contains them.
	Payload *LinkPayload `json:"payload"`
	// ConnectedAt is when the tokens were obtained; lifetimes count from it.
	// Zero: neither the body nor the CloudEvents envelope has a time.
	ConnectedAt time.Time `json:"connectedAt"`
	// Labels are the publisher's own and stay with the grants: at most 8, with names of
	// up to 64 letters, digits, hyphens and underscores, and values of up to 256 bytes.
	Labels map[string]string `json:"labels"`
	// Metadata is sent with each refresh of the grants (@meshconnect/node-api 2.0.28,
	// RefreshTokenRequest.metadata), for institutions that need some according to Mesh: at
	// most 16, with names as for labels and values of up to 1,024 bytes. It is encrypted
	// with the tokens.
	Metadata map[string]secret.Text `json:"metadata"`
	// LeftOut lists what was not usable: fields and rules, never values.
	LeftOut []string `json:"-"`
	// Published is when NATS stored the message. The decoder leaves it zero: not known.
	Published time.Time `json:"-"`
}

// Empty reports whether a message brings no token.
func (c *Connected) Empty() bool { return c.Payload.AccessToken == nil && c.Payload.DelayedAuth == nil }

// LinkPayload is what Mesh Link passes to onIntegrationConnected: one of two forms
// (@meshconnect/web-link-sdk 3.13.0, LinkPayload). The iOS, Android and Flutter SDKs
// pass the bare object of either form. Fields that Latchkey does not use are ignored.
type LinkPayload struct {
	AccessToken *AccessTokenPayload `json:"accessToken"`
	DelayedAuth *DelayedAuthPayload `json:"delayedAuth"`
}

// AccessTokenPayload contains access tokens.
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

// PayloadAccount is an account at the institution. Tokens without an account id belong
// to the accounts with the same refresh token, or to accounts that the next refresh
// names.
type PayloadAccount struct {
	AccountID   string `json:"accountId"`
	AccountName string `json:"accountName"`
}

// DelayedAuthPayload contains only a refresh token. The first refresh brings the access
// tokens.
type DelayedAuthPayload struct {
	RefreshToken                 secret.Text `json:"refreshToken"`
	RefreshTokenExpiresInSeconds Seconds     `json:"refreshTokenExpiresInSeconds"`
	BrokerType                   string      `json:"brokerType"`
	BrokerName                   string      `json:"brokerName"`
}

// DecodeConnected reads an integration.connected message that is not sealed: plain JSON
// or a CloudEvents 1.0 structured message. Every error is an *InvalidError.
func DecodeConnected(body []byte) (Connected, error) {
	m, err := UnwrapConnected(nil, body)
	if err != nil {
		return Connected{}, err
	}
	return m.Decode()
}

const problemYears = "outside the years 1970 to 9899"

// validTime keeps times, and the sum of a time and a lifetime, within what databases and
// RFC 3339 can hold (years 1970 to 9999).
func validTime(t time.Time) bool {
	year := t.UTC().Year()
	return 1970 <= year && year <= 9899
}

const maxNameBytes = 512

// CutName shortens a display name, so that events with it fit into a NATS message.
func CutName(name string) string {
	if len(name) <= maxNameBytes {
		return name
	}
	return strings.ToValidUTF8(name[:maxNameBytes], "")
}

// BoundedID returns an account id or, if it is longer than 512 bytes, a hash of it, which
// takes its place in documents, events and replies.
func BoundedID(id string) string {
	if len(id) <= maxNameBytes {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "sha256-" + hex.EncodeToString(sum[:])
}
