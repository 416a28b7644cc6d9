package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store/envelope"
)

// TokenSet is a grant's secrets.
type TokenSet struct {
	Accounts []AccountToken `json:"a"`
	// RefreshToken is the one the accounts share. Empty: there is none.
	RefreshToken secret.Text `json:"r,omitzero"`
	TradeToken   secret.Text `json:"t,omitzero"`
	// Metadata goes along with each refresh.
	Metadata map[string]secret.Text `json:"m,omitempty"`
	// Interim is the access token with which the user's code completes a refresh. It is
	// never handed out.
	Interim secret.Text `json:"n,omitzero"`
	// Spare are tokens of the last answer that belong to no account of the grant.
	Spare []secret.Text `json:"s,omitempty"`
	// Leftovers are texts that may contain tokens and are to become dead letters.
	Leftovers []secret.Text `json:"l,omitempty"`
	// Origin is the hash of the refresh token that the connect brought: a connect
	// with the same one is a repetition.
	Origin string `json:"o,omitempty"`
}

// OriginOf returns what Origin is for a refresh token; empty for none.
func OriginOf(refreshToken secret.Text) string {
	if refreshToken.Empty() {
		return ""
	}
	sum := sha256.Sum256([]byte(refreshToken.Reveal()))
	return hex.EncodeToString(sum[:])
}

// AccountToken is the access token of one account. The id is empty in a grant whose
// accounts are not known.
type AccountToken struct {
	AccountID   string      `json:"i"`
	AccessToken secret.Text `json:"a"`
	TokenID     secret.Text `json:"t,omitzero"`
	// RefreshToken is one that an answer brought for this account alone, until the
	// account has a grant of its own.
	RefreshToken secret.Text `json:"r,omitzero"`
}

// hasSeparateRefreshTokens reports whether accounts are to become grants of their own.
func (t *TokenSet) hasSeparateRefreshTokens() bool {
	return slices.ContainsFunc(t.Accounts, func(a AccountToken) bool { return !a.RefreshToken.Empty() })
}

// Account returns the entry of an account, or nil.
func (t *TokenSet) Account(id string) *AccountToken {
	for i := range t.Accounts {
		if t.Accounts[i].AccountID == id {
			return &t.Accounts[i]
		}
	}
	return nil
}

// Access returns the access token of an account; empty: it has none.
func (t *TokenSet) Access(id string) secret.Text {
	if its := t.Account(id); its != nil {
		return its.AccessToken
	}
	return secret.Text{}
}

// revealing encodes secrets in the clear, which only a set to be sealed may be.
var revealing = jsonv2.WithMarshalers(jsonv2.MarshalToFunc(func(enc *jsontext.Encoder, t secret.Text) error {
	return enc.WriteToken(jsontext.String(t.Reveal()))
}))

// jsonSize returns a bound on the size of the set's JSON.
func (t *TokenSet) jsonSize() int {
	size := 64 // what surrounds the texts
	add := func(s string) {
		size += len(s) + len(`,"x":""`) + 1
		for i := range len(s) {
			if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
				size += len(`\u0000`) - 1
			}
		}
	}
	add(t.Origin)
	secrets := slices.Concat([]secret.Text{t.RefreshToken, t.TradeToken, t.Interim}, t.Spare, t.Leftovers)
	for _, a := range t.Accounts {
		add(a.AccountID)
		secrets = append(secrets, a.AccessToken, a.TokenID, a.RefreshToken)
	}
	for name, value := range t.Metadata {
		add(name)
		secrets = append(secrets, value)
	}
	for _, s := range secrets {
		add(s.Reveal())
	}
	return size
}

// marshal returns the set as JSON, for the caller to wipe. No copy of it stays in the
// pooled buffers of the JSON package: that encodes into the memory of a bytes.Buffer,
// which never has to grow since a quarter of it is spare.
func (t *TokenSet) marshal() []byte {
	size := t.jsonSize()
	buf := bytes.NewBuffer(make([]byte, 0, size+size/3+1))
	// Version 2 of the package escapes no more than it must: the sealed set is no
	// larger than the answer that it comes from.
	if jsonv2.MarshalWrite(buf, t, jsontext.AllowInvalidUTF8(true), revealing) != nil {
		panic("a token set does not marshal") // without the error: it could quote a value
	}
	return buf.Bytes()
}

// SealTokens seals a token set to a binding. It can't fail.
func SealTokens(s envelope.Sealer, t TokenSet, b envelope.Binding) envelope.Blob {
	plain := t.marshal()
	defer clear(plain[:cap(plain)])
	return s.Seal(plain, b)
}

// OpenTokens opens what SealTokens sealed. Errors are those of envelope.Open.
func OpenTokens(ctx context.Context, e *envelope.Envelope, blob envelope.Blob, b envelope.Binding) (TokenSet, error) {
	plain, err := e.Open(ctx, blob, b)
	if err != nil {
		return TokenSet{}, fmt.Errorf("opening the tokens of grant %s: %w", b.Grant, err)
	}
	defer clear(plain)
	return decodeTokens(plain, b.Grant)
}

func decodeTokens(plain []byte, grant string) (TokenSet, error) {
	tokens := &TokenSet{Accounts: []AccountToken{}}
	if jsonv2.Unmarshal(plain, &tokens) != nil || tokens == nil { // without its error: it could quote a value
		return TokenSet{}, fmt.Errorf("decoding the tokens of grant %s: %w", grant, errors.New("unexpected form"))
	}
	return *tokens, nil
}
