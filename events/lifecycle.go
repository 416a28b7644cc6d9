package events

import (
	"encoding/json"
	"net/url"
	"time"
)

// Source is the CloudEvents source of events whose installation is not known, such as
// those of earlier releases. It begins all others.
const Source = "latchkey"

// SourceOf returns the CloudEvents source of an installation's events: a relative URI
// reference that no other installation has, and no event of a former one.
func SourceOf(installation string) string {
	if installation == "" {
		return Source
	}
	return Source + "/" + url.PathEscape(installation)
}

// Reason is the reason for an event.
type Reason string

// Reasons of token.stored, token.expiring, token.expired, token.revoked and token.removal.
const (
	// ReasonNoRefreshToken: the access token ends and there is no refresh token.
	ReasonNoRefreshToken Reason = "no_refresh_token"
	// ReasonRefreshTokenExpired: the refresh token has expired.
	ReasonRefreshTokenExpired Reason = "refresh_token_expired"
	// ReasonRefreshTokenExpiring: the refresh token is about to expire, and no refresh
	// has brought a new one.
	ReasonRefreshTokenExpiring Reason = "refresh_token_expiring"
	// ReasonMFARequired: the user must authenticate with the institution again.
	ReasonMFARequired Reason = "mfa_required"
	// ReasonRejected: the institution refused the refresh token for good.
	ReasonRejected Reason = "rejected"
	// ReasonNotFound: Mesh or the institution no longer knows the account.
	ReasonNotFound Reason = "not_found"
	// ReasonBadRequest: Mesh refuses the refresh request as invalid.
	ReasonBadRequest Reason = "bad_request"
	// ReasonLegal: refreshes are refused for legal reasons. Workers retry now and then.
	ReasonLegal Reason = "unavailable_for_legal_reasons"
	// ReasonRefreshFailing: refreshes fail. Workers continue to retry.
	ReasonRefreshFailing Reason = "refresh_failing"
	// ReasonNotCovered: refreshes succeed, but bring no tokens for these accounts of the
	// grant.
	ReasonNotCovered Reason = "not_covered"
	// ReasonOutcomeLost: the answer of an earlier refresh was lost, with the new refresh
	// token in it.
	ReasonOutcomeLost Reason = "outcome_lost"
	// ReasonUnreadable: the stored tokens can't be decrypted: they were changed, or their
	// key was deleted.
	ReasonUnreadable Reason = "unreadable"
	// ReasonDisconnected: the user disconnected.
	ReasonDisconnected Reason = "disconnected"
	// ReasonReplaced: every account of the grant was connected again and is in another.
	ReasonReplaced Reason = "replaced"
	// ReasonSplit: accounts of one grant received different refresh tokens. There is now
	// a grant for each refresh token.
	ReasonSplit Reason = "split"
	// ReasonMoved: a later connect of another user or broker had the refresh token of the
	// grant.
	ReasonMoved Reason = "moved"
	// ReasonRemoved: Mesh has removed the disconnected account, or does not know it.
	ReasonRemoved Reason = "removed"
	// ReasonRemovalRefused: Mesh refuses to remove the disconnected account, usually
	// because the access token has expired. The account may still be there.
	ReasonRemovalRefused Reason = "removal_refused"
	// ReasonRemovalTimedOut: every attempt to remove it failed, for days.
	ReasonRemovalTimedOut Reason = "removal_timed_out"
	// ReasonNoAccessToken: a removal needs an access token, and there was none.
	ReasonNoAccessToken Reason = "no_access_token"
)

// Lifecycle is the data of a token.* event. It never holds a token.
type Lifecycle struct {
	UserID     string `json:"userId"`
	GrantID    string `json:"grantId"`
	BrokerType string `json:"brokerType"`
	BrokerName string `json:"brokerName,omitempty"`
	// Accounts are the accounts of the grant that the event is about.
	Accounts []Account `json:"accounts"`
	// AccountsOmitted is the number of accounts that did not fit into the message.
	AccountsOmitted int `json:"accountsOmitted,omitempty"`
	// Version counts the token sets of the grant.
	Version int64 `json:"version"`
	// An end is absent if the token does not expire, or if the end is not known.
	ExpiresAt             *time.Time `json:"expiresAt,omitempty"`
	RefreshTokenExpiresAt *time.Time `json:"refreshTokenExpiresAt,omitempty"`
	Reason                Reason     `json:"reason,omitempty"`
	// Labels are those of the newest connect that had any.
	Labels map[string]string `json:"labels,omitempty"`
	// ErrorType and ErrorHash are from Mesh's last answer, for a question to its support:
	// at most 64 letters, digits, "_" and "-".
	ErrorType string `json:"errorType,omitempty"`
	ErrorHash string `json:"errorHash,omitempty"`
}

// Account names an account in an event.
type Account struct {
	AccountID   string `json:"accountId"`
	AccountName string `json:"accountName,omitempty"`
}

// LifecycleEvent is a lifecycle event with its CloudEvents attributes.
type LifecycleEvent struct {
	// ID is the same in all copies of the event, and also the message's Nats-Msg-Id.
	ID string
	// Kind is one of LifecycleKinds.
	Kind string
	// Source is that of SourceOf; empty: Source.
	Source string
	Time   time.Time
	Data   Lifecycle
}

// Encode returns the event as CloudEvents 1.0 JSON (structured mode).
func (e LifecycleEvent) Encode() ([]byte, error) {
	return encodeCloudEvent(e.ID, e.Source, e.Kind, e.Data.GrantID, e.Time, e.Data)
}

// EncodeWithin is Encode for a message of at most limit bytes. It cuts display names and,
// if necessary, omits the last accounts. If the event is too large even without
// accounts, it exceeds limit.
func (e LifecycleEvent) EncodeWithin(limit int) ([]byte, error) {
	e.Data.BrokerName = CutName(e.Data.BrokerName)
	accounts := make([]Account, len(e.Data.Accounts))
	for i, a := range e.Data.Accounts {
		accounts[i] = Account{AccountID: a.AccountID, AccountName: CutName(a.AccountName)}
	}
	e.Data.Accounts = accounts
	whole, err := e.Encode()
	if err != nil || len(whole) <= limit {
		return whole, err
	}
	e.Data.Accounts, e.Data.AccountsOmitted = accounts[:0], e.Data.AccountsOmitted+len(accounts)
	bare, err := e.Encode()
	if err != nil {
		return nil, err
	}
	room := limit - len(bare)
	for n := range accounts {
		encoded, _ := json.Marshal(accounts[n]) // texts only
		if room -= len(encoded) + 1; room < 0 { // with its comma
			break
		}
		e.Data.Accounts, e.Data.AccountsOmitted = accounts[:n+1], e.Data.AccountsOmitted-1
	}
	return e.Encode()
}

// ShrinkLifecycle returns an encoded event unchanged if it has at most limit bytes, or else
// as EncodeWithin encodes it.
func ShrinkLifecycle(body []byte, limit int) ([]byte, error) {
	if len(body) <= limit {
		return body, nil
	}
	e, err := DecodeLifecycle(body)
	if err != nil {
		return nil, err
	}
	return e.EncodeWithin(limit)
}

// DecodeLifecycle reads what Encode wrote. Every error is an *InvalidError.
func DecodeLifecycle(body []byte) (LifecycleEvent, error) {
	const name = "token event"
	in, err := decodeCloudEvent(name, body)
	if err != nil {
		return LifecycleEvent{}, err
	}
	if in == nil {
		return LifecycleEvent{}, invalid(name, "not a CloudEvents 1.0 structured message")
	}
	e := LifecycleEvent{ID: in.ID, Kind: in.Type, Source: in.Source, Time: in.Time}
	return e, decodeStrict(name, in.Data, &e.Data)
}
