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

// message returns the integration.connected message that a line stands for,
// as it is to be published and decoded. start is when the import began: tokens
// of which it is not known when they were obtained count from it. An error is
// the reason of a rejection and holds nothing of the line but names of fields.
func message(line []byte, start time.Time) (body []byte, in events.Connected, err error) {
	var form struct {
		Payload     jsontext.Value `json:"payload"`
		SpecVersion jsontext.Value `json:"specversion"`
	}
	body = line
	if err := decode(line, &form); err != nil {
		return nil, in, err
	}
	if form.Payload == nil && form.SpecVersion == nil {
		if body, err = flatBody(line, start); err != nil {
			return nil, in, err
		}
	}
	if in, err = events.DecodeConnected(body); err != nil {
		return nil, in, err
	}
	switch { // a line can be mended, other than a message
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

// flat is a row of a home-made table: one account, or a refresh token alone.
type flat struct {
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
	// ObtainedAt is when the tokens were obtained; the lifetimes count from it.
	ObtainedAt                   time.Time      `json:"obtainedAt"`
	ExpiresAt                    time.Time      `json:"expiresAt"`
	ExpiresInSeconds             events.Seconds `json:"expiresInSeconds"`
	RefreshTokenExpiresAt        time.Time      `json:"refreshTokenExpiresAt"`
	RefreshTokenExpiresInSeconds events.Seconds `json:"refreshTokenExpiresInSeconds"`
}

var flatFields = []string{
	"userId", "brokerType", "brokerName", "accountId", "accountName", "accessToken", "refreshToken", "tradeToken", "tokenId", "labels",
	"obtainedAt", "expiresAt", "expiresInSeconds", "refreshTokenExpiresAt", "refreshTokenExpiresInSeconds",
}

// flatBody makes an integration.connected message of a row.
func flatBody(line []byte, start time.Time) ([]byte, error) {
	var row flat
	// A misspelt name would lose a refresh token without a word.
	if err := decode(line, &row, jsonx.RejectUnknownMembers(true)); err != nil {
		return nil, err
	}
	at, err := row.obtained(start)
	if err != nil {
		return nil, err
	}
	type object = map[string]any
	access := lifetime(at, row.ExpiresAt, row.ExpiresInSeconds)
	refresh := lifetime(at, row.RefreshTokenExpiresAt, row.RefreshTokenExpiresInSeconds)
	payload := object{"accessToken": object{
		"brokerType": row.BrokerType, "brokerName": row.BrokerName, "expiresInSeconds": access, "refreshTokenExpiresInSeconds": refresh,
		"accountTokens": []object{{
			"account":     object{"accountId": row.AccountID, "accountName": row.AccountName},
			"accessToken": row.AccessToken.Reveal(), "refreshToken": row.RefreshToken.Reveal(),
			"tradeToken": row.TradeToken.Reveal(), "tokenId": row.TokenID.Reveal(),
		}},
	}}
	if row.AccountID == "" && row.AccessToken.Empty() {
		payload = object{"delayedAuth": object{
			"brokerType": row.BrokerType, "brokerName": row.BrokerName, "refreshToken": row.RefreshToken.Reveal(), "refreshTokenExpiresInSeconds": refresh,
		}}
	}
	body, err := json.Marshal(object{"userId": row.UserID, "connectedAt": at, "payload": payload, "labels": row.Labels})
	if err != nil { // it may quote a value
		return nil, errors.New("can't be encoded")
	}
	return body, nil
}

// obtained returns when the tokens of a row were obtained, or, where the row
// does not say so, a time before their ends and no later than start.
func (f flat) obtained(start time.Time) (time.Time, error) {
	at := f.ObtainedAt
	if at.IsZero() {
		at = start
	}
	for _, end := range []struct {
		name string
		at   time.Time
		in   events.Seconds
	}{{"expires", f.ExpiresAt, f.ExpiresInSeconds}, {"refreshTokenExpires", f.RefreshTokenExpiresAt, f.RefreshTokenExpiresInSeconds}} {
		switch {
		case !end.at.IsZero() && end.in != 0:
			return at, fmt.Errorf("%sAt and %sInSeconds: only one of them may be given", end.name, end.name)
		case end.in != 0 && f.ObtainedAt.IsZero():
			return at, fmt.Errorf("%sInSeconds: counts from obtainedAt, which is missing", end.name)
		case end.at.IsZero():
		case !f.ObtainedAt.IsZero() && end.at.Sub(at) < time.Second:
			return at, fmt.Errorf("%sAt: not after obtainedAt", end.name)
		case end.at.Sub(at) < time.Second:
			at = end.at.Add(-time.Second)
		}
	}
	return at, nil
}

// lifetime is what is left from at to an end; 0 for none.
func lifetime(at, end time.Time, in events.Seconds) events.Seconds {
	if end.IsZero() {
		return in
	}
	return events.Seconds(end.Sub(at).Seconds())
}

// decode reads JSON. The errors of the library quote values; ours don't.
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
	if name := semantic.JSONPointer.LastToken(); slices.Contains(flatFields, name) {
		return fmt.Errorf("%s: not of the right type or form", name)
	}
	return errors.New("not a JSON object of one of the two forms")
}
