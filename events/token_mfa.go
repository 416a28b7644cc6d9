package events

import (
	"encoding/json"
	"time"

	"github.com/latchkey/latchkey/events/secret"
)

// TokenMFAName is the MFA request's name in errors and statistics.
const TokenMFAName = "token.mfa"

// MFARequest sends the code that a grant's refresh waits for, on Subjects.TokenMFA of the
// same user.
type MFARequest struct {
	UserID  string
	GrantID string
	// Code is the one that the institution sent to the user. Workers neither store nor log it.
	Code secret.Text
	// Version is that of the token.expiring event that asked for the code; 0: any.
	Version int64
}

// wireMFARequest is the only type in which a code leaves a process.
type wireMFARequest struct {
	UserID  string `json:"userId"`
	GrantID string `json:"grantId"`
	Code    string `json:"code"`
	Version int64  `json:"version,omitempty"`
}

// Limits of a code and of the id of a grant, which has 32 bytes.
const maxCode, maxGrantID = 64, 64

var mfaRequestMembers = membersOf[wireMFARequest]()

// Encode returns the request as JSON, with the code in plain text.
func (r MFARequest) Encode() ([]byte, error) {
	body, err := json.Marshal(wireMFARequest{r.UserID, r.GrantID, r.Code.Reveal(), r.Version})
	if err != nil { // the error may quote a value
		return nil, invalid(TokenMFAName, "can't be encoded")
	}
	return body, nil
}

// DecodeMFARequest reads an MFA request. Every error is an *InvalidError.
func DecodeMFARequest(body []byte) (MFARequest, error) {
	var in wireMFARequest
	if err := decodeStrict(TokenMFAName, body, &in); err != nil {
		return MFARequest{}, err
	}
	if err := CheckUserID(in.UserID); err != nil {
		return MFARequest{}, invalid(TokenMFAName, "userId: %v", err)
	}
	if err := mfaRequestMembers.check(TokenMFAName, body); err != nil {
		return MFARequest{}, err
	}
	for _, m := range []struct {
		name, value string
		most        int
	}{{"grantId", in.GrantID, maxGrantID}, {"code", in.Code, maxCode}} {
		if m.value == "" || len(m.value) > m.most {
			return MFARequest{}, invalid(TokenMFAName, "%s: must have 1 to %d bytes", m.name, m.most)
		}
		if _, found := invisible(m.value); found {
			return MFARequest{}, invalid(TokenMFAName, "%s: contains a control or formatting character", m.name)
		}
	}
	if in.Version < 0 {
		return MFARequest{}, invalid(TokenMFAName, "version: must not be negative")
	}
	return MFARequest{UserID: in.UserID, GrantID: in.GrantID, Code: secret.New(in.Code), Version: in.Version}, nil
}

// MFAReply says that a code has completed a refresh. Request the tokens as usual.
type MFAReply struct {
	GrantID string `json:"grantId"`
	// Version is that of the new token set; 0: it is not in the database yet.
	Version int64 `json:"version,omitempty"`
	// ExpiresAt is the access token's end. Absent: it does not expire, or it is not known
	// when.
	ExpiresAt *time.Time `json:"expiresAt,omitempty"`
}

// Codes of a refused MFA request, besides CodeBadRequest, CodeForbidden, CodeUnknownUser
// (the user has no such grant), CodeInternal and CodeBusy (the code was not sent, or the
// outcome is not known; request tokens before you send it again).
const (
	CodeNotPending   = "not_pending"   // 409: no refresh of the grant waits for a code
	CodeOtherVersion = "other_version" // 412: the grant has changed since it asked for the code
	CodeLate         = "code_late"     // 410: the time for the code is over; the user must connect again
	CodeRefused      = "code_refused"  // 422: the institution refused the code; the user may try another
	CodeOutdated     = "code_expired"  // 419: the institution refused the code as expired; the user may try a newer one
)

// MFACodeNumber maps the codes of refused MFA requests to the number in
// Nats-Service-Error-Code.
var MFACodeNumber = map[string]string{
	CodeBadRequest: "400", CodeForbidden: "403", CodeUnknownUser: "404", CodeNotPending: "409", CodeLate: "410",
	CodeOtherVersion: "412", CodeRefused: "422", CodeOutdated: "419", CodeInternal: "500", CodeBusy: "503",
}
