package imports

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	jsonx "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
)

// message returns the integration.connected message of a line, encoded and decoded.
// start is when the import began: tokens of unknown age count from it. An error is the
// reason of a rejection, and holds nothing of the line but names of fields.
func message(line []byte, start time.Time) (body []byte, in events.Connected, err error) {
	var r row
	// Unknown fields are refused: a misspelt name would silently lose a refresh token.
	if err = decode(line, &r, jsonx.RejectUnknownMembers(true)); err == nil {
		body, err = r.message(start)
	} else {
		body, err = line, notMessage(line, err)
	}
	if err != nil {
		return nil, in, err
	}
	if in, err = events.DecodeConnected(body); err != nil {
		return nil, in, err
	}
	switch { // unlike a message, a line can be corrected
	case len(in.LeftOut) > 0:
		return nil, in, errors.New(in.LeftOut[0])
	case in.Empty():
		return nil, in, errors.New("no token: there is nothing to keep")
	}
	if in.ConnectedAt.IsZero() {
		return nil, in, errors.New("connectedAt: missing; lifetimes count from it")
	}
	return body, in, nil
}

// notMessage returns nil if a line that is no row is a message. Otherwise it returns why
// the line is neither.
func notMessage(line []byte, notRow error) error {
	var form struct {
		Payload     jsontext.Value `json:"payload"`
		SpecVersion jsontext.Value `json:"specversion"`
	}
	err := decode(line, &form)
	if err == nil && form.Payload == nil && form.SpecVersion == nil {
		return notRow
	}
	return err
}

// row is a line that is no message: the tokens of one account, or a refresh token alone.
type row struct {
	UserID       string      `json:"userId"`
	BrokerType   string      `json:"brokerType"`
	BrokerName   string      `json:"brokerName"`
	AccountID    string      `json:"accountId"`
	AccountName  string      `json:"accountName"`
	AccessToken  secret.Text `json:"accessToken"`
	RefreshToken secret.Text `json:"refreshToken"`
	TradeToken   secret.Text `json:"tradeToken"`
	TokenID      secret.Text `json:"tokenId"`
	// Labels are kept with the grant.
	Labels map[string]string `json:"labels"`
	// ObtainedAt is when the tokens were obtained. Lifetimes count from it.
	ObtainedAt                   time.Time      `json:"obtainedAt"`
	ExpiresAt                    time.Time      `json:"expiresAt"`
	ExpiresInSeconds             events.Seconds `json:"expiresInSeconds"`
	RefreshTokenExpiresAt        time.Time      `json:"refreshTokenExpiresAt"`
	RefreshTokenExpiresInSeconds events.Seconds `json:"refreshTokenExpiresInSeconds"`
}

var rowFields = []string{
	"userId", "brokerType", "brokerName", "accountId", "accountName", "accessToken", "refreshToken", "tradeToken", "tokenId", "labels",
	"obtainedAt", "expiresAt", "expiresInSeconds", "refreshTokenExpiresAt", "refreshTokenExpiresInSeconds",
}

// message encodes a row as an integration.connected message.
func (r row) message(start time.Time) ([]byte, error) {
	at, err := r.obtained(start)
	if err != nil {
		return nil, err
	}
	type object = map[string]any
	access := lifetime(at, r.ExpiresAt, r.ExpiresInSeconds)
	refresh := lifetime(at, r.RefreshTokenExpiresAt, r.RefreshTokenExpiresInSeconds)
	payload := object{"accessToken": object{
		"brokerType": r.BrokerType, "brokerName": r.BrokerName, "expiresInSeconds": access, "refreshTokenExpiresInSeconds": refresh,
		"accountTokens": []object{{
			"account":     object{"accountId": r.AccountID, "accountName": r.AccountName},
			"accessToken": r.AccessToken.Reveal(), "refreshToken": r.RefreshToken.Reveal(),
			"tradeToken": r.TradeToken.Reveal(), "tokenId": r.TokenID.Reveal(),
		}},
	}}
	if r.AccountID == "" && r.AccessToken.Empty() {
		payload = object{"delayedAuth": object{
			"brokerType": r.BrokerType, "brokerName": r.BrokerName, "refreshToken": r.RefreshToken.Reveal(), "refreshTokenExpiresInSeconds": refresh,
		}}
	}
	body, err := json.Marshal(object{"userId": r.UserID, "connectedAt": at, "payload": payload, "labels": r.Labels})
	if err != nil { // it may quote a value
		return nil, errors.New("can't be encoded")
	}
	return body, nil
}

// obtained returns when the tokens of a row were obtained. If the row does not say, it
// returns the last time before they expire that is no later than start.
func (r row) obtained(start time.Time) (time.Time, error) {
	at := r.ObtainedAt
	if at.IsZero() {
		at = start
	}
	for _, end := range []struct {
		name string
		at   time.Time
		in   events.Seconds
	}{{"expires", r.ExpiresAt, r.ExpiresInSeconds}, {"refreshTokenExpires", r.RefreshTokenExpiresAt, r.RefreshTokenExpiresInSeconds}} {
		switch {
		case !end.at.IsZero() && end.in != 0:
			return at, fmt.Errorf("%sAt and %sInSeconds: only one of them may be given", end.name, end.name)
		case end.in != 0 && r.ObtainedAt.IsZero():
			return at, fmt.Errorf("%sInSeconds: counts from obtainedAt, which is missing", end.name)
		case end.at.IsZero():
		case !r.ObtainedAt.IsZero() && end.at.Sub(at) < time.Second:
			return at, fmt.Errorf("%sAt: not after obtainedAt", end.name)
		case end.at.Sub(at) < time.Second:
			at = end.at.Add(-time.Second)
		}
	}
	return at, nil
}

// lifetime is the time from at to the end; 0: there is no end.
func lifetime(at, end time.Time, in events.Seconds) events.Seconds {
	if end.IsZero() {
		return in
	}
	return events.Seconds(end.Sub(at).Seconds())
}

// decode decodes JSON. Unlike the errors of the library, its errors quote no values.
func decode(line []byte, v any, options ...jsonx.Options) error {
	err := jsonx.Unmarshal(line, v, options...)
	var semantic *jsonx.SemanticError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jsonx.ErrUnknownName):
		return errors.New("a field that is not known; names are case-sensitive")
	case errors.Is(err, jsontext.ErrDuplicateName):
		return errors.New("an object has the same name twice")
	case !errors.As(err, &semantic):
		return errors.New("not well-formed JSON in UTF-8")
	}
	if name := semantic.JSONPointer.LastToken(); slices.Contains(rowFields, name) {
		return fmt.Errorf("%s: not of the right type or form", name)
	}
	return errors.New("not a JSON object of one of the two forms")
}
