package events

import "time"

// Disconnected is the integration.disconnected message: a user, or one broker
// or account of a user, is to be forgotten.
type Disconnected struct {
	UserID string `json:"userId"`
	// BrokerType narrows the disconnect to one broker. Empty: all.
	BrokerType string `json:"brokerType"`
	// AccountID narrows it to one account. Empty: all.
	AccountID string `json:"accountId"`
	// DisconnectedAt is when the user disconnected: what was connected later
	// stays. Zero when neither the body nor the CloudEvents envelope said so.
	DisconnectedAt time.Time `json:"disconnectedAt"`
}

// DecodeDisconnected reads an integration.disconnected message, plain JSON or
// a CloudEvents 1.0 structured message. Every error is an *InvalidError.
func DecodeDisconnected(body []byte) (Disconnected, error) {
	const name = IntegrationDisconnected
	data, at, err := unwrap(name, body)
	if err != nil {
		return Disconnected{}, err
	}
	var d Disconnected
	if err := decodeStrict(name, data, &d); err != nil {
		return Disconnected{}, err
	}
	if err := CheckUserID(d.UserID); err != nil {
		return Disconnected{}, invalid(name, "userId: %v", err)
	}
	for field, value := range map[string]string{"brokerType": d.BrokerType, "accountId": d.AccountID} {
		if len(value) > maxNameBytes {
			return Disconnected{}, invalid(name, "%s: %d bytes, at most %d", field, len(value), maxNameBytes)
		}
		if r, found := unseen(value); found {
			return Disconnected{}, invalid(name, "%s: contains the control or formatting character %U", field, r)
		}
	}
	if d.DisconnectedAt.IsZero() {
		d.DisconnectedAt = at
	}
	return d, checkTime(name, "disconnectedAt", d.DisconnectedAt)
}
