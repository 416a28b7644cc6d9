package events

import (
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Disconnected is the integration.disconnected message: forget one broker or account of
// a user, or everything of the user.
type Disconnected struct {
	UserID string `json:"userId"`
	// BrokerType narrows the disconnect to one broker. Empty: all.
	BrokerType string `json:"brokerType,omitempty"`
	// AccountID narrows it to one account. Empty: all.
	AccountID string `json:"accountId,omitempty"`
	// Everything is required if neither BrokerType nor AccountID is set, and means all of
	// the user.
	Everything bool `json:"everything,omitempty"`
	// DisconnectedAt is when the user disconnected: later connects stay. Zero: neither
	// the body nor the CloudEvents envelope has a time.
	DisconnectedAt time.Time `json:"disconnectedAt,omitzero"`
}

var disconnectedMembers = membersOf[Disconnected]()

// DecodeDisconnected reads an integration.disconnected message: plain JSON or a
// CloudEvents 1.0 structured message. Members that are unknown, null or empty are
// refused, so that no mistake makes the message cover more than its sender meant. Every
// error is an *InvalidError.
func DecodeDisconnected(body []byte) (Disconnected, error) {
	return DecodeDisconnectedMessage(nil, body)
}

// DecodeDisconnectedMessage is DecodeDisconnected for a message that may be in the
// binary mode of CloudEvents. It refuses a time that it can't read: without the time,
// later connects would be erased too.
func DecodeDisconnectedMessage(h Headers, body []byte) (Disconnected, error) {
	const name = IntegrationDisconnected
	if err := h.check(name); err != nil {
		return Disconnected{}, err
	}
	data, at, err := unwrap(name, body)
	if err != nil {
		return Disconnected{}, err
	}
	if at.IsZero() {
		var problem string
		if at, problem = h.time(); problem != "" {
			return Disconnected{}, invalid(name, "ce-time: %s", problem)
		}
	}
	var d Disconnected
	if err := decodeStrict(name, data, &d); err != nil {
		return Disconnected{}, err
	}
	if err := CheckUserID(d.UserID); err != nil {
		return Disconnected{}, invalid(name, "userId: %v", err)
	}
	if err := disconnectedMembers.check(name, data); err != nil {
		return Disconnected{}, err
	}
	if err := d.checkScope(); err != nil {
		return Disconnected{}, err
	}
	if d.DisconnectedAt.IsZero() {
		if hasMember(data, "disconnectedAt") { // a Go program that never set it
			return Disconnected{}, invalid(name, "disconnectedAt: the zero time; leave the member out or give it a value")
		}
		d.DisconnectedAt = at
	}
	if !d.DisconnectedAt.IsZero() && !validTime(d.DisconnectedAt) {
		return Disconnected{}, invalid(name, "disconnectedAt: %s", problemYears)
	}
	return d, nil
}

func (d Disconnected) checkScope() error {
	const name = IntegrationDisconnected
	narrow := d.BrokerType != "" || d.AccountID != ""
	switch {
	case !narrow && !d.Everything:
		return invalid(name, `neither brokerType nor accountId narrows it; if all of the user is meant, say "everything": true`)
	case narrow && d.Everything:
		return invalid(name, "everything: brokerType or accountId narrows it, so it can't be everything")
	}
	for field, value := range map[string]string{"brokerType": d.BrokerType, "accountId": d.AccountID} {
		if len(value) > maxNameBytes {
			return invalid(name, "%s: %d bytes, at most %d", field, len(value), maxNameBytes)
		}
		if r, found := invisible(value); found {
			return invalid(name, "%s: contains the control or formatting character %U", field, r)
		}
	}
	return nil
}

// AddEverything adds "everything" to a disconnect without brokerType and accountId,
// which earlier releases applied to all of the user. Use it only if the sender meant
// that. If the body is no such disconnect, the error is an *InvalidError.
func AddEverything(body []byte) ([]byte, error) {
	const name = IntegrationDisconnected
	data, at, err := unwrap(name, body)
	if err != nil {
		return nil, err
	}
	var given map[string]jsontext.Value
	if err := decodeStrict(name, data, &given); err != nil {
		return nil, err
	}
	for _, member := range []string{"brokerType", "accountId", "disconnectedAt"} {
		if value := string(given[member]); value == "null" || value == `""` {
			delete(given, member)
		}
	}
	if given["brokerType"] != nil || given["accountId"] != nil {
		return nil, invalid(name, "brokerType or accountId narrows it")
	}
	if given == nil {
		return nil, invalid(name, "the body: a JSON object is needed")
	}
	given["everything"] = jsontext.Value("true")
	if given["disconnectedAt"] == nil && !at.IsZero() {
		given["disconnectedAt"] = jsontext.Value(at.UTC().AppendFormat(nil, `"`+time.RFC3339Nano+`"`))
	}
	out, err := json.Marshal(given)
	if err != nil {
		return nil, invalid(name, "can't be encoded")
	}
	_, err = DecodeDisconnected(out)
	return out, err
}
