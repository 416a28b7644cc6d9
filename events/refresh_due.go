package events

import "time"

// RefreshDue is the body of a schedule and of the refresh.due message that it
// becomes. It names what was due, so that a late or duplicate message about an
// older state of the grant is recognised; it holds nothing about the user.
type RefreshDue struct {
	GrantID string `json:"grantId"`
	// BrokerType lets a consumer apply the limits of the broker before it reads
	// the grant.
	BrokerType string `json:"brokerType"`
	// Version is that of the token set for which the schedule was made.
	Version int64 `json:"version"`
	// DueAt is the grant's due time for which the schedule was made. It equals
	// the stored due time to the millisecond, or the message is out of date.
	DueAt time.Time `json:"dueAt"`
	// ExpiresAt is the end of the access token at hand, zero for none, and Idle
	// says that nobody asked for it lately: where refreshes have to wait, these
	// two decide who goes first.
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
	Idle      bool      `json:"idle,omitempty"`
	// Unknown says that the outcome of the last call is not known: until it is
	// tried again, the refresh token may have been replaced by a lost one.
	Unknown bool `json:"unknown,omitempty"`
}

// RefreshDueName is the name of the message in errors and dead letters.
const RefreshDueName = "refresh.due"

// DecodeRefreshDue reads a refresh.due message. Every error is an
// *InvalidError.
func DecodeRefreshDue(body []byte) (RefreshDue, error) {
	var d RefreshDue
	if err := decodeStrict(RefreshDueName, body, &d); err != nil {
		return RefreshDue{}, err
	}
	if d.GrantID == "" || d.Version < 1 || d.DueAt.IsZero() {
		return RefreshDue{}, invalid(RefreshDueName, "needs grantId, version and dueAt")
	}
	return d, nil
}
