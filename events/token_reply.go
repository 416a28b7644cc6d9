package events

import (
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/latchkey/latchkey/events/secret"
)

type wireToken struct {
	AccountID   string `json:"accountId"`
	AccountName string `json:"accountName"`
	AccessToken string `json:"accessToken"`
	BrokerType  string `json:"brokerType"`
	BrokerName  string `json:"brokerName"`
	TokenID     string `json:"tokenId,omitempty"`
}

type wireReply struct {
	AccessTokens []wireToken          `json:"accessTokens"`
	Expiries     []TokenExpiry        `json:"expiries"`
	Unavailable  []UnavailableAccount `json:"unavailable,omitempty"`
	Refused      []RefusedResult      `json:"refused,omitempty"`
	// Sealed is set in a reply that is sealed, which has no other member.
	Sealed jsontext.Value `json:"sealed,omitzero"`
}

// TokenTexts are the secrets of one of TokenReply.AccessTokens as JSON strings, in memory
// that whoever made them wipes.
type TokenTexts struct {
	AccessToken []byte
	// TokenID is nil if there is none.
	TokenID []byte
}

// QuoteToken returns the secrets of an access token as JSON strings.
func QuoteToken(accessToken, tokenID secret.Text) TokenTexts {
	quote := func(t secret.Text) []byte {
		s := t.Reveal()
		return appendQuoted(make([]byte, 0, longest(s)), s) // which never grows: that would leave a copy
	}
	texts := TokenTexts{AccessToken: quote(accessToken)}
	if !tokenID.Empty() {
		texts.TokenID = quote(tokenID)
	}
	return texts
}

// Wipe clears the memory of the texts.
func (t TokenTexts) Wipe() {
	clear(t.AccessToken)
	clear(t.TokenID)
}

// Encode returns the reply as JSON with the tokens in plain text, for the requester only.
func (r TokenReply) Encode() ([]byte, error) {
	texts := make([]TokenTexts, len(r.AccessTokens))
	for i, t := range r.AccessTokens {
		texts[i] = QuoteToken(t.AccessToken, t.TokenID)
		defer texts[i].Wipe()
	}
	return r.EncodeTexts(texts)
}

// EncodeTexts is Encode with texts in place of the secrets in AccessTokens, which it does
// not read. It copies each text once, into the body.
func (r TokenReply) EncodeTexts(texts []TokenTexts) ([]byte, error) {
	rest, err := json.Marshal(struct {
		Expiries    []TokenExpiry        `json:"expiries"`
		Unavailable []UnavailableAccount `json:"unavailable,omitempty"`
		Refused     []RefusedResult      `json:"refused,omitempty"`
	}{r.Expiries, r.Unavailable, r.Refused}, jsontext.AllowInvalidUTF8(true), json.Deterministic(true))
	if err != nil {
		return nil, errors.New("encoding a token reply failed") // the error may quote a value
	}
	b := append(make([]byte, 0, r.sizeOfTokens(texts)+len(rest)), `{"accessTokens":[`...)
	for i, t := range r.AccessTokens {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendQuoted(append(b, `{"accountId":`...), t.AccountID)
		b = appendQuoted(append(b, `,"accountName":`...), t.AccountName)
		b = append(append(b, `,"accessToken":`...), texts[i].AccessToken...)
		b = appendQuoted(append(b, `,"brokerType":`...), t.BrokerType)
		b = appendQuoted(append(b, `,"brokerName":`...), t.BrokerName)
		if texts[i].TokenID != nil {
			b = append(append(b, `,"tokenId":`...), texts[i].TokenID...)
		}
		b = append(b, '}')
	}
	return append(append(b, `],`...), rest[1:]...), nil
}

// sizeOfTokens bounds what comes before the expiries in a body. Memory that had to grow
// would leave a copy of the tokens.
func (r TokenReply) sizeOfTokens(texts []TokenTexts) int {
	size := 32
	for i, t := range r.AccessTokens {
		size += 96 + longest(t.AccountID, t.AccountName, t.BrokerType, t.BrokerName) + len(texts[i].AccessToken) + len(texts[i].TokenID)
	}
	return size
}

// longest bounds the lengths of texts as JSON strings.
func longest(texts ...string) (size int) {
	for _, s := range texts {
		size += len(`""`) + len(`\u0000`)*len(s)
	}
	return size
}

// appendQuoted appends a JSON string, in which invalid UTF-8 is replaced.
func appendQuoted(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s) // its error is that it had to replace something
	return b
}

// DecodeTokenReply reads what Encode wrote. It refuses a sealed reply; see
// events/sealing.OpenReply. Every error is an *InvalidError.
func DecodeTokenReply(body []byte) (TokenReply, error) {
	var in wireReply
	if err := decodeStrict(TokenGetName+" reply", body, &in); err != nil {
		return TokenReply{}, err
	}
	if in.Sealed != nil {
		if _, err := SealedReply(body); err != nil {
			return TokenReply{}, err
		}
		return TokenReply{}, invalid(TokenGetName+" reply", "sealed: it must be opened first")
	}
	r := TokenReply{AccessTokens: make([]IntegrationAccessToken, len(in.AccessTokens)), Expiries: in.Expiries, Unavailable: in.Unavailable, Refused: in.Refused}
	for i, t := range in.AccessTokens {
		r.AccessTokens[i] = IntegrationAccessToken{t.AccountID, t.AccountName, secret.New(t.AccessToken), t.BrokerType, t.BrokerName, secret.New(t.TokenID)}
	}
	return r, nil
}
