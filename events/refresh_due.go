package events

import "time"

// RefreshDue is the body of a schedule and of the refresh.due message that it becomes.
// Version and DueAt show whether it is out of date. It contains nothing about the user.
type RefreshDue struct {
	GrantID string `json:"grantId"`
	// BrokerType lets workers apply the broker's limits before they read the grant.
	BrokerType string `json:"brokerType"`
	// Version is that of the token set to refresh.
	Version int64 `json:"version"`
	// DueAt is the grant's due time. If the stored one differs by a millisecond or more,
	// the message is out of date.
	DueAt time.Time `json:"dueAt"`
	// ExpiresAt is the end of the access token, zero for none. Idle: nobody has requested
	// the token recently. Both set the order of refreshes that must wait.
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
	Idle      bool      `json:"idle,omitempty"`
	// Unknown: the outcome of the last refresh is not known. Its answer may have replaced
	// the refresh token.
	Unknown bool `json:"unknown,omitempty"`
	// Call: when it is due, the action calls Mesh, by what was known when the message was
	// written. It travels in HeaderCall, since workers of an earlier release refuse a body
	// with a field that they don't know.
	Call bool `json:"-"`
}

// HeaderCall is the header of a refresh.due message whose action calls Mesh; it has any value.
const HeaderCall = "Latchkey-Call"

// RefreshDueName is the name of the message in errors and dead letters.
const RefreshDueName = "refresh.due"

// DecodeRefreshDue reads a refresh.due message. Every error is an *InvalidError.
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
