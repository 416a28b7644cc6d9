package events

import (
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/latchkey/latchkey/events/secret"
)

// TokenGetName is the token request's name in errors and statistics.
const TokenGetName = "token.get"

// TokenRequest requests the current tokens of one user, on Subjects.TokenGet of the same
// user.
type TokenRequest struct {
	UserID string `json:"userId"`
	// BrokerType narrows the request to one broker. Empty: all.
	BrokerType string `json:"brokerType,omitempty"`
	// AccountID narrows it to one account. Empty: all.
	AccountID string `json:"accountId,omitempty"`
	// MinTTLSeconds is the shortest remaining lifetime of a token. One with less is
	// refreshed first, unless half of its lifetime is left. Nil: the worker's tokens.min_ttl.
	MinTTLSeconds *int64 `json:"minTTLSeconds,omitempty"`
	// Refused reports tokens of earlier replies that did not work, at most MaxRefused. If
	// the grant still has the reported version, it is refreshed first.
	Refused []RefusedToken `json:"refused,omitempty"`
	// SealTo is the key to seal the reply to, so that nobody else can read it. Refusals
	// contain no token and are not sealed.
	SealTo *JWK `json:"sealTo,omitempty"`
}

// maxMinTTL keeps MinTTLSeconds within what a time.Duration can hold.
const maxMinTTL = int64(maxLifetime / time.Second)

var tokenRequestMembers = membersOf[TokenRequest]()

// DecodeTokenRequest reads a token request. It refuses unknown members and narrowing
// members that are null or empty, so that no mistake makes a request cover more than its
// sender meant. Every error is an *InvalidError.
func DecodeTokenRequest(body []byte) (TokenRequest, error) {
	var r TokenRequest
	if err := decodeStrict(TokenGetName, body, &r); err != nil {
		return TokenRequest{}, err
	}
	if err := CheckUserID(r.UserID); err != nil {
		return TokenRequest{}, invalid(TokenGetName, "userId: %v", err)
	}
	if err := tokenRequestMembers.check(TokenGetName, body); err != nil {
		return TokenRequest{}, err
	}
	if r.MinTTLSeconds != nil && (*r.MinTTLSeconds < 0 || *r.MinTTLSeconds > maxMinTTL) {
		return TokenRequest{}, invalid(TokenGetName, "minTTLSeconds: must lie between 0 and %d", maxMinTTL)
	}
	if err := checkRefused(r.Refused); err != nil {
		return TokenRequest{}, err
	}
	if r.SealTo != nil {
		if err := checkSealTo(body, *r.SealTo); err != nil {
			return TokenRequest{}, err
		}
	}
	return r, nil
}

// checkSealTo refuses keys that can't be sealed to, and private keys: their owner has
// given away the key that opens the replies.
func checkSealTo(body []byte, key JWK) error {
	private := false
	eachMember(body, func(name []byte, jwk jsontext.Value) {
		if string(name) == "sealTo" {
			eachMember(jwk, func(name []byte, _ jsontext.Value) {
				private = private || slices.Contains(privateMembers, string(name))
			})
		}
	})
	if private {
		return invalid(TokenGetName, "sealTo: has a private part; send the public key only, and replace this one")
	}
	if _, err := key.PublicKey(); err != nil {
		return invalid(TokenGetName, "sealTo: %v", err)
	}
	return nil
}

// IntegrationAccessToken is an element of the accessTokens of createLink in the Link SDK
// (@meshconnect/web-link-sdk 3.13.0).
type IntegrationAccessToken struct {
	AccountID   string
	AccountName string
	AccessToken secret.Text
	BrokerType  string
	BrokerName  string
	// TokenID is the id of a token that Mesh refreshes itself (Mesh Managed Tokens). Empty:
	// there is none.
	TokenID secret.Text
}

// TokenReply answers a TokenRequest. The Link SDK takes AccessTokens as they are.
type TokenReply struct {
	AccessTokens []IntegrationAccessToken
	// Expiries describes each of AccessTokens, in the same order.
	Expiries []TokenExpiry
	// Unavailable lists the requested accounts for which there is no token.
	Unavailable []UnavailableAccount
	// Refused has the result for each of TokenRequest.Refused, in the same order.
	Refused []RefusedResult
}

// TokenExpiry describes the age, end and reliability of a token.
type TokenExpiry struct {
	AccountID string `json:"accountId"`
	GrantID   string `json:"grantId"`
	// Labels are those of the grant.
	Labels map[string]string `json:"labels,omitempty"`
	// Version counts the token sets of the grant. 0: a worker of an earlier release
	// answered.
	Version int64 `json:"version,omitzero"`
	// ObtainedAt is when the token was obtained. Nil: not known.
	ObtainedAt *time.Time `json:"obtainedAt,omitempty"`
	// An end is absent if the token does not expire, or if the end is not known.
	ExpiresAt             *time.Time `json:"expiresAt,omitempty"`
	RefreshTokenExpiresAt *time.Time `json:"refreshTokenExpiresAt,omitempty"`
	// RefreshFailing is set while refreshes of the grant fail: this may be the last token.
	RefreshFailing *RefreshFailing `json:"refreshFailing,omitempty"`
}

// UnavailableAccount says why an account has no token in a reply.
type UnavailableAccount struct {
	AccountID  string `json:"accountId,omitempty"`
	BrokerType string `json:"brokerType"`
	GrantID    string `json:"grantId"`
	// Code is one of the Code constants.
	Code string `json:"code"`
	// Reason is the reason in the grant's token.expired or token.expiring event.
	Reason Reason `json:"reason,omitempty"`
	// RetryAfterSeconds, with CodeBusy: an earlier request would fail too. 0: not known.
	RetryAfterSeconds int64 `json:"retryAfterSeconds,omitzero"`
}

// Codes of a refused token request, in the Nats-Service-Error header (with the
// number in Nats-Service-Error-Code) and in UnavailableAccount.
const (
	CodeBadRequest  = "bad_request"  // 400: the request violates its contract
	CodeForbidden   = "forbidden"    // 403: the subject and the body name different users
	CodeUnknownUser = "unknown_user" // 404: no stored grant matches the request
	CodeMustAct     = "must_act"     // 409: the user must authenticate again
	CodeExpired     = "expired"      // 410: the tokens have expired; the user must connect again
	CodeInternal    = "internal"     // 500: an error of the worker; see its log
	CodeBusy        = "busy"         // 503: no token was available in time; request again
)

// CodeNumber maps a code to the number in Nats-Service-Error-Code.
var CodeNumber = map[string]string{
	CodeBadRequest:  "400",
	CodeForbidden:   "403",
	CodeUnknownUser: "404",
	CodeMustAct:     "409",
	CodeExpired:     "410",
	CodeInternal:    "500",
	CodeBusy:        "503",
}
