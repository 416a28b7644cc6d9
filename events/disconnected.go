package events

import (
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Disconnected is the integration.disconnected message: one broker or account
// of a user, or everything of the user, is to be forgotten.
type Disconnected struct {
	UserID string `json:"userId"`
	// BrokerType narrows the disconnect to one broker. Empty: all.
	BrokerType string `json:"brokerType,omitempty"`
	// AccountID narrows it to one account. Empty: all.
	AccountID string `json:"accountId,omitempty"`
	// Everything says that nothing narrows it: all of the user is meant. Without
	// it one of BrokerType and AccountID is needed.
	Everything bool `json:"everything,omitempty"`
	// DisconnectedAt is when the user disconnected: what was connected later
	// stays. Zero when neither the body nor the CloudEvents envelope said so.
	DisconnectedAt time.Time `json:"disconnectedAt,omitzero"`
}

var disconnectedMembers = membersOf[Disconnected]()

// DecodeDisconnected reads an integration.disconnected message, plain JSON or
// a CloudEvents 1.0 structured message. Nothing that is written wrongly makes it
// cover more than it says: members that are unknown, null or empty are refused,
// and so is a message that neither narrows nor says everything. Every error is an
// *InvalidError.
func DecodeDisconnected(body []byte) (Disconnected, error) {
	return DecodeDisconnectedMessage(nil, body)
}

// DecodeDisconnectedMessage is DecodeDisconnected for a message that may be a
// CloudEvents message in binary mode. A time that can't be read is refused: without
// it what was connected since would be erased too.
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
		var given map[string]jsontext.Value
		if err := decodeStrict(name, data, &given); err != nil {
			return Disconnected{}, err
		}
		if given["disconnectedAt"] != nil { // Go's zero time, of a program that never set it
			return Disconnected{}, invalid(name, "disconnectedAt: the zero time; leave the member out or give it a value")
		}
		d.DisconnectedAt = at
	}
	return d, checkTime(name, "disconnectedAt", d.DisconnectedAt)
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
		if r, found := unseen(value); found {
			return invalid(name, "%s: contains the control or formatting character %U", field, r)
		}
	}
	return nil
}

// SayEverything returns a disconnect that nothing narrows, as earlier releases took
// it for all of the user, in the form that says so. It is for somebody who knows
// that everything was meant. The error is an *InvalidError: the body is no such
// disconnect.
func SayEverything(body []byte) ([]byte, error) {
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
