package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store/envelope"
)

// TokenSet is a grant's secrets. It is decoded from what plainSet encodes.
type TokenSet struct {
	Accounts []AccountToken `json:"a"`
	// RefreshToken is the one the accounts share. Empty: there is none.
	RefreshToken secret.Text `json:"r"`
	TradeToken   secret.Text `json:"t"`
	// Metadata goes along with each refresh.
	Metadata map[string]secret.Text `json:"m"`
	// Interim is the access token with which the user's code completes a refresh. It
	// is handed out to nobody.
	Interim secret.Text `json:"n"`
	// Spare are tokens of the last answer that are nobody's in the grant.
	Spare []secret.Text `json:"s"`
	// Left are texts that may hold tokens and wait to become dead letters.
	Left []secret.Text `json:"l"`
	// Origin is the hash of the refresh token with which the grant was
	// connected: a connect that brings it again is a repetition.
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

// Repeats reports whether a refresh token is the one with which the grant was
// connected, though it has been replaced since.
func (t *TokenSet) Repeats(refreshToken secret.Text) bool {
	return t.Origin != "" && t.Origin == OriginOf(refreshToken) && !t.RefreshToken.Equal(refreshToken)
}

// AccountToken is the access token of one account. The id is empty in a grant whose
// accounts are not known.
type AccountToken struct {
	AccountID   string      `json:"i"`
	AccessToken secret.Text `json:"a"`
	TokenID     secret.Text `json:"t"`
	// RefreshToken is one that an answer brought for this account alone, until the
	// account stands in a grant of its own.
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

func (t TokenSet) plain() plainSet {
	p := plainSet{Accounts: make([]plainAccount, len(t.Accounts)), RefreshToken: t.RefreshToken.Reveal(), TradeToken: t.TradeToken.Reveal(), Origin: t.Origin, Interim: t.Interim.Reveal()}
	for i, a := range t.Accounts {
		p.Accounts[i] = plainAccount{a.AccountID, a.AccessToken.Reveal(), a.TokenID.Reveal(), a.RefreshToken.Reveal()}
	}
	for name, value := range t.Metadata {
		if p.Metadata == nil {
			p.Metadata = map[string]string{}
		}
		p.Metadata[name] = value.Reveal()
	}
	for _, token := range t.Spare {
		p.Spare = append(p.Spare, token.Reveal())
	}
	for _, text := range t.Left {
		p.Left = append(p.Left, text.Reveal())
	}
	return p
}

// SealTokens seals a token set to a binding. It can't fail.
func SealTokens(s envelope.Sealer, t TokenSet, b envelope.Binding) envelope.Blob {
	// Version 2 of the package escapes no more than it must: the sealed set is no
	// larger than the answer that it comes from.
	plain, err := jsonv2.Marshal(t.plain(), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic("a struct of strings does not marshal") // without err: it could quote a value
	}
	defer clear(plain)
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
