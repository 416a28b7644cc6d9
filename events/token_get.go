package events

import (
	"bytes"
	"errors"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/latchkey/latchkey/events/secret"
)

// TokenGetName is the name of the token request in errors and statistics.
const TokenGetName = "token.get"

// TokenRequest asks for the current tokens of one user. It is sent to
// Subjects.TokenGet of the same user.
type TokenRequest struct {
	UserID string `json:"userId"`
	// BrokerType narrows the request to one broker. Empty: all.
	BrokerType string `json:"brokerType,omitempty"`
	// AccountID narrows it to one account. Empty: all.
	AccountID string `json:"accountId,omitempty"`
	// MinTTLSeconds is the least life that a token should have left; with less,
	// it is refreshed first, but not before half of its life is over. Nil: the worker's configured default.
	MinTTLSeconds *int64 `json:"minTTLSeconds,omitempty"`
	// Refused names tokens, of earlier replies, that were refused where they were
	// used. What is still the grant's version is refreshed first. At most MaxRefused.
	Refused []RefusedToken `json:"refused,omitempty"`
	// SealTo has the reply sealed to this key, so that nobody else can read it.
	// Refusals are not sealed: they hold no token.
	SealTo *JWK `json:"sealTo,omitempty"`
}

// maxMinTTL keeps MinTTLSeconds within what a time.Duration can hold.
const maxMinTTL = int64(maxLifetime / time.Second)

var tokenRequestMembers = membersOf[TokenRequest]()

// DecodeTokenRequest reads a token request. What is written
// wrongly does not make it ask for more: unknown members are refused, and so are
// those that narrow it if they are null or empty. Every error is an *InvalidError.
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

// checkSealTo refuses what is no public key for sealing. A private part shows
// that the sender gave away what it opens replies with.
func checkSealTo(body []byte, key JWK) error {
	var probe struct {
		SealTo privateMembers `json:"sealTo"`
	}
	if err := decodeStrict(TokenGetName, body, &probe); err != nil {
		return err
	}
	if probe.SealTo.any() {
		return invalid(TokenGetName, "sealTo: has a private part; send the public key only, and replace this one")
	}
	if _, err := key.PublicKey(); err != nil {
		return invalid(TokenGetName, "sealTo: %v", err)
	}
	return nil
}

// IntegrationAccessToken is one element of what the Link SDK's createLink
// takes as accessTokens (@meshconnect/web-link-sdk 3.13.0).
type IntegrationAccessToken struct {
	AccountID   string
	AccountName string
	AccessToken secret.Text
	BrokerType  string
	BrokerName  string
	// TokenID is the handle of a token that Mesh keeps alive itself (Mesh Managed
	// Tokens). Empty: there is none.
	TokenID secret.Text
}

// TokenReply answers a TokenRequest. AccessTokens can be handed to the Link
// SDK as it is.
type TokenReply struct {
	AccessTokens []IntegrationAccessToken
	// Expiries tells, for each of AccessTokens in the same order, its age and end.
	Expiries []TokenExpiry
	// Unavailable names accounts that were asked for but have no token that
	// could be given.
	Unavailable []UnavailableAccount
	// Refused tells, for each of TokenRequest.Refused in the same order, what became
	// of it.
	Refused []RefusedResult
}

// TokenExpiry tells how old and how sure a handed out token is, and when it ends.
type TokenExpiry struct {
	AccountID string `json:"accountId"`
	GrantID   string `json:"grantId"`
	// Labels are those of the grant.
	Labels map[string]string `json:"labels,omitempty"`
	// Version is that of the grant: it grows with every token set. 0: a worker of an
	// earlier release answered.
	Version int64 `json:"version,omitzero"`
	// ObtainedAt is when the token was obtained. Nil: not known.
	ObtainedAt *time.Time `json:"obtainedAt,omitempty"`
	// ExpiresAt is absent when the token has no end, or none is known.
	ExpiresAt             *time.Time `json:"expiresAt,omitempty"`
	RefreshTokenExpiresAt *time.Time `json:"refreshTokenExpiresAt,omitempty"`
	// RefreshFailing is set while refreshes of the grant fail: this token may be the
	// last.
	RefreshFailing *RefreshFailing `json:"refreshFailing,omitempty"`
}

// UnavailableAccount tells why an account has no token in a reply.
type UnavailableAccount struct {
	AccountID  string `json:"accountId,omitempty"`
	BrokerType string `json:"brokerType"`
	GrantID    string `json:"grantId"`
	// Code is one of the Code constants.
	Code string `json:"code"`
	// Reason is that of the grant's token.expired or token.expiring event.
	Reason Reason `json:"reason,omitempty"`
	// RetryAfterSeconds, with CodeBusy: asking earlier does not help. 0: not known.
	RetryAfterSeconds int64 `json:"retryAfterSeconds,omitzero"`
}

// Codes of a refused token request, in the Nats-Service-Error header (with the
// number in Nats-Service-Error-Code) and in UnavailableAccount.
const (
	CodeBadRequest  = "bad_request"  // 400: the request violates its contract
	CodeForbidden   = "forbidden"    // 403: the subject and the body name different users
	CodeUnknownUser = "unknown_user" // 404: nothing is stored that matches the request
	CodeMustAct     = "must_act"     // 409: the user has to authenticate again
	CodeExpired     = "expired"      // 410: the tokens are dead; the user has to connect again
	CodeInternal    = "internal"     // 500: a fault of the worker; see its log
	CodeBusy        = "busy"         // 503: a token could not be had in time; ask again
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

// wireToken is the only shape in which an access token leaves a process.
type wireToken struct {
	AccountID   string `json:"accountId"`
	AccountName string `json:"accountName"`
	AccessToken string `json:"accessToken"`
	BrokerType  string `json:"brokerType"`
	BrokerName  string `json:"brokerName"`
	TokenID     string `json:"tokenId,omitempty"`
}

type wireReply struct {
	AccessTokens []wireToken          `json:"accessTokens"`
	Expiries     []TokenExpiry        `json:"expiries"`
	Unavailable  []UnavailableAccount `json:"unavailable,omitempty"`
	Refused      []RefusedResult      `json:"refused,omitempty"`
}

// Encode returns the reply as JSON with the tokens in the clear. It is meant
// for the requester and for nobody else.
func (r TokenReply) Encode() ([]byte, error) {
	out := wireReply{AccessTokens: make([]wireToken, len(r.AccessTokens)), Expiries: r.Expiries, Unavailable: r.Unavailable, Refused: r.Refused}
	size := 64
	for i, t := range r.AccessTokens {
		out.AccessTokens[i] = wireToken{t.AccountID, t.AccountName, t.AccessToken.Reveal(), t.BrokerType, t.BrokerName, t.TokenID.Reveal()}
		size += 512 + len(out.AccessTokens[i].AccessToken) + len(out.AccessTokens[i].TokenID)
	}
	// Enough as a rule, with the quarter that the encoder keeps free: no copy of a token
	// stays in an outgrown buffer.
	body := bytes.NewBuffer(make([]byte, 0, size*3/2))
	if json.MarshalWrite(body, out, jsontext.AllowInvalidUTF8(true), json.Deterministic(true)) != nil { // its error could quote a value
		clear(body.Bytes())
		return nil, errors.New("encoding a token reply failed")
	}
	return body.Bytes(), nil
}

// DecodeTokenReply reads what Encode wrote. A reply that is sealed is refused;
// see events/sealing.OpenReply. Every error is an *InvalidError.
func DecodeTokenReply(body []byte) (TokenReply, error) {
	if jwe, err := SealedReply(body); err != nil {
		return TokenReply{}, err
	} else if jwe != "" {
		return TokenReply{}, invalid(TokenGetName+" reply", "sealed: it must be opened first")
	}
	var in wireReply
	if err := decodeStrict(TokenGetName+" reply", body, &in); err != nil {
		return TokenReply{}, err
	}
	r := TokenReply{AccessTokens: make([]IntegrationAccessToken, len(in.AccessTokens)), Expiries: in.Expiries, Unavailable: in.Unavailable, Refused: in.Refused}
	for i, t := range in.AccessTokens {
		r.AccessTokens[i] = IntegrationAccessToken{t.AccountID, t.AccountName, secret.New(t.AccessToken), t.BrokerType, t.BrokerName, secret.New(t.TokenID)}
	}
	return r, nil
}
