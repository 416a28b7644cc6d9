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

// TokenSet is a grant's secrets. It is decoded from the JSON of a plainSet.
type TokenSet struct {
	Accounts []AccountToken `json:"a"`
	// RefreshToken is the one the accounts share. Empty: there is none.
	RefreshToken secret.Text `json:"r"`
	TradeToken   secret.Text `json:"t"`
	// Metadata goes along with each refresh.
	Metadata map[string]secret.Text `json:"m"`
	// Interim is the access token with which the user's code completes a refresh. It is
	// never handed out.
	Interim secret.Text `json:"n"`
	// Spare are tokens of the last answer that belong to no account of the grant.
	Spare []secret.Text `json:"s"`
	// Left are texts that may contain tokens and are to become dead letters.
	Left []secret.Text `json:"l"`
	// Origin is the hash of the refresh token that the connect brought: a connect
	// with the same one is a repetition.
	Origin string `json:"o"`
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
	TokenID     secret.Text `json:"t"`
	// RefreshToken is one that an answer brought for this account alone, until the
	// account has a grant of its own.
	RefreshToken secret.Text `json:"r"`
}

// apart reports whether accounts are to become grants of their own.
func (t *TokenSet) apart() bool {
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

// The plain forms exist only between marshalling and sealing.
type plainSet struct {
	Accounts     []plainAccount    `json:"a"`
	RefreshToken string            `json:"r,omitempty"`
	TradeToken   string            `json:"t,omitempty"`
	Metadata     map[string]string `json:"m,omitempty"`
	Origin       string            `json:"o,omitempty"`
	Interim      string            `json:"n,omitempty"`
	Spare        []string          `json:"s,omitempty"`
	Left         []string          `json:"l,omitempty"`
}

type plainAccount struct {
	ID      string `json:"i"`
	Access  string `json:"a"`
	Token   string `json:"t,omitempty"`
	Refresh string `json:"r,omitempty"`
}

// plain also returns a bound on the size of the set's JSON.
func (t TokenSet) plain() (p plainSet, size int) {
	size = 64 // what surrounds the texts
	text := func(s string) string {
		size += len(s) + len(`,"x":""`) + 1
		for i := range len(s) {
			if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
				size += len(`\u0000`) - 1
			}
		}
		return s
	}
	p = plainSet{
		Accounts: make([]plainAccount, len(t.Accounts)), RefreshToken: text(t.RefreshToken.Reveal()), TradeToken: text(t.TradeToken.Reveal()),
		Origin: text(t.Origin), Interim: text(t.Interim.Reveal()),
	}
	for i, a := range t.Accounts {
		p.Accounts[i] = plainAccount{text(a.AccountID), text(a.AccessToken.Reveal()), text(a.TokenID.Reveal()), text(a.RefreshToken.Reveal())}
	}
	if len(t.Metadata) > 0 {
		p.Metadata = make(map[string]string, len(t.Metadata))
	}
	for name, value := range t.Metadata {
		p.Metadata[text(name)] = text(value.Reveal())
	}
	for _, token := range t.Spare {
		p.Spare = append(p.Spare, text(token.Reveal()))
	}
	for _, left := range t.Left {
		p.Left = append(p.Left, text(left.Reveal()))
	}
	return p, size
}

// marshal returns the set as JSON, for the caller to wipe. No copy of it stays in the
// pooled buffers of the JSON package: that encodes into the memory of a bytes.Buffer,
// which never has to grow since a quarter of it is spare.
func (t TokenSet) marshal() []byte {
	plain, size := t.plain()
	buf := bytes.NewBuffer(make([]byte, 0, size+size/3+1))
	// Version 2 of the package escapes no more than it must: the sealed set is no
	// larger than the answer that it comes from.
	if jsonv2.MarshalWrite(buf, plain, jsontext.AllowInvalidUTF8(true)) != nil {
		panic("a struct of strings does not marshal") // without the error: it could quote a value
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
	tokens := &TokenSet{Accounts: []AccountToken{}}
	if jsonv2.Unmarshal(plain, &tokens) != nil || tokens == nil { // without its error: it could quote a value
		return TokenSet{}, fmt.Errorf("decoding the tokens of grant %s: %w", b.Grant, errors.New("unexpected form"))
	}
	return *tokens, nil
}
