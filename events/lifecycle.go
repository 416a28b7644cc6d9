package events

import (
	"encoding/json"
	"fmt"
	"time"
)

// Source is the CloudEvents source of every lifecycle event.
const Source = "latchkey"

// Reason says why a token is expiring or expired, or what made an event.
type Reason string

// Reasons of token.stored, token.expiring, token.expired, token.revoked and token.removal.
const (
	// ReasonNoRefreshToken: the access token ends and nothing can renew it.
	ReasonNoRefreshToken Reason = "no_refresh_token"
	// ReasonRefreshTokenExpired: the refresh token's own life is over.
	ReasonRefreshTokenExpired Reason = "refresh_token_expired"
	// ReasonRefreshTokenExpiring: the refresh token itself is about to end, and no
	// refresh has brought another.
	ReasonRefreshTokenExpiring Reason = "refresh_token_expiring"
	// ReasonMFARequired: the institution wants the user to authenticate again.
	ReasonMFARequired Reason = "mfa_required"
	// ReasonRejected: the institution refused the refresh token for good.
	ReasonRejected Reason = "rejected"
	// ReasonNotFound: Mesh or the institution no longer knows the account.
	ReasonNotFound Reason = "not_found"
	// ReasonBadRequest: the refresh request can't be made acceptable.
	ReasonBadRequest Reason = "bad_request"
	// ReasonLegal: refreshes are refused for legal reasons; they are tried again now
	// and then.
	ReasonLegal Reason = "unavailable_for_legal_reasons"
	// ReasonRefreshFailing: refreshes fail for now; they go on being tried.
	ReasonRefreshFailing Reason = "refresh_failing"
	// ReasonNotCovered: refreshes succeed and bring nothing for these accounts of the
	// grant. The others go on.
	ReasonNotCovered Reason = "not_covered"
	// ReasonOutcomeLost: the answer of an earlier refresh was lost, and with it
	// the refresh token that replaced ours.
	ReasonOutcomeLost Reason = "outcome_lost"
	// ReasonUnreadable: the stored tokens don't open (changed from outside,
	// or their key is gone for good).
	ReasonUnreadable Reason = "unreadable"
	// ReasonDisconnected: the user, or somebody for him, disconnected.
	ReasonDisconnected Reason = "disconnected"
	// ReasonReplaced: every account of the grant was connected anew elsewhere.
	ReasonReplaced Reason = "replaced"
	// ReasonSplit: the institution has given accounts of one grant refresh tokens of
	// their own. Each of these is a grant of its own now.
	ReasonSplit Reason = "split"
	// ReasonMoved: another user, or the same one at another broker, connected with
	// the refresh token of the grant since.
	ReasonMoved Reason = "moved"
	// ReasonRemoved: Mesh has removed what was disconnected, or does not know it.
	ReasonRemoved Reason = "removed"
	// ReasonRemovalRefused: Mesh refuses to remove what was disconnected, as a rule
	// because the access token has ended. It may still be there.
	ReasonRemovalRefused Reason = "removal_refused"
	// ReasonRemovalTimedOut: Mesh could not be had to remove it in days of trying.
	ReasonRemovalTimedOut Reason = "removal_timed_out"
	// ReasonNoAccessToken: nothing can be removed without an access token, and there
	// was none.
	ReasonNoAccessToken Reason = "no_access_token"
)

// Lifecycle is the data of a token.* event. It never holds a token.
type Lifecycle struct {
	UserID     string `json:"userId"`
	GrantID    string `json:"grantId"`
	BrokerType string `json:"brokerType"`
	BrokerName string `json:"brokerName,omitempty"`
	// Accounts are those of the grant that the event is true of.
	Accounts []Account `json:"accounts"`
	// AccountsOmitted is how many more there are than a message holds.
	AccountsOmitted int `json:"accountsOmitted,omitempty"`
	// Version is that of the grant's token set; it grows by one with each.
	Version int64 `json:"version"`
	// ExpiresAt is the access token's end. Absent: it has none, or none is known.
	ExpiresAt *time.Time `json:"expiresAt,omitempty"`
	// RefreshTokenExpiresAt is the refresh token's end, likewise.
	RefreshTokenExpiresAt *time.Time `json:"refreshTokenExpiresAt,omitempty"`
	Reason                Reason     `json:"reason,omitempty"`
	// Labels are those that the newest connect with some brought.
	Labels map[string]string `json:"labels,omitempty"`
	// ErrorType and ErrorHash are words of Mesh's last answer, for a question to its
	// support: letters, digits, "_" and "-", no more than 64.
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
	// ID is stable over redeliveries: a subscriber that has seen it may pass
	// over the event. It is the message's Nats-Msg-Id too.
	ID string
	// Kind is one of LifecycleKinds.
	Kind string
	Time time.Time
	Data Lifecycle
}

// Encode returns the event as CloudEvents 1.0 JSON (structured mode).
func (e LifecycleEvent) Encode() ([]byte, error) {
	return encodeCloudEvent(e.ID, e.Kind, e.Data.GrantID, e.Time, e.Data)
}

// EncodeWithin is Encode for a message that may have no more than limit bytes:
// display names are cut, and the last accounts are left out and counted, as far
// as it takes. A limit that is too low even without accounts is exceeded.
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
		encoded, err := json.Marshal(accounts[n])
		if err != nil {
			return nil, fmt.Errorf("encoding the accounts of %s: %w", e.Kind, err)
		}
		if room -= len(encoded) + 1; room < 0 { // with its comma
			break
		}
		e.Data.Accounts, e.Data.AccountsOmitted = accounts[:n+1], e.Data.AccountsOmitted-1
	}
	return e.Encode()
}

// FitLifecycle returns an encoded event in a form of no more than limit bytes:
// as it is if it fits, else as EncodeWithin would have it.
func FitLifecycle(body []byte, limit int) ([]byte, error) {
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
	e := LifecycleEvent{ID: in.ID, Kind: in.Type, Time: in.Time}
	return e, decodeStrict(name, in.Data, &e.Data)
}
