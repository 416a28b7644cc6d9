package store

import (
	"bytes"
	"io"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/latchkey/latchkey/events/secret"
)

// decodeTokens reads what SealTokens has sealed; false: it is something else.
// It goes from token to token, since every hand-out waits for it, and since a
// decoder of structs would keep short secrets for later use.
func decodeTokens(plain []byte) (t TokenSet, ok bool) {
	r := tokenReaders.Get().(*tokenReader)
	defer r.put()
	r.from = *bytes.NewBuffer(plain)
	r.json.Reset(&r.from)
	t.Accounts = []AccountToken{}
	r.object(func(name string) {
		switch name {
		case "a":
			r.array(func() { t.Accounts = append(t.Accounts, r.account()) })
		case "r":
			t.RefreshToken = secret.New(r.text())
		case "t":
			t.TradeToken = secret.New(r.text())
		case "m":
			t.Metadata = map[string]secret.Text{}
			r.object(func(name string) { t.Metadata[name] = secret.New(r.text()) })
		case "n":
			t.Interim = secret.New(r.text())
		case "s":
			t.Spare = r.texts()
		case "l":
			t.Left = r.texts()
		case "o":
			t.Origin = r.text()
		default:
			r.skip()
		}
	})
	if _, err := r.json.ReadToken(); err != io.EOF {
		r.failed = true
	}
	return t, !r.failed
}

func (r *tokenReader) account() (a AccountToken) {
	r.object(func(name string) {
		switch name {
		case "i":
			a.AccountID = r.text()
		case "a":
			a.AccessToken = secret.New(r.text())
		case "t":
			a.TokenID = secret.New(r.text())
		case "r":
			a.RefreshToken = secret.New(r.text())
		default:
			r.skip()
		}
	})
	return a
}

var tokenReaders = sync.Pool{New: func() any { return &tokenReader{} }}

// tokenReader reads JSON in place. After a failure it reads nothing more.
type tokenReader struct {
	from   bytes.Buffer
	json   jsontext.Decoder
	failed bool
}

// put gives the reader back without what it has read, which its user clears.
func (r *tokenReader) put() {
	r.from, r.failed = bytes.Buffer{}, false
	r.json.Reset(&r.from)
	tokenReaders.Put(r)
}

func (r *tokenReader) object(member func(name string)) {
	for r.expect('{'); !r.failed && r.json.PeekKind() == '"'; {
		member(r.text())
	}
	r.expect('}')
}

func (r *tokenReader) array(element func()) {
	for r.expect('['); !r.failed && r.json.PeekKind() == '{'; {
		element()
	}
	r.expect(']')
}

func (r *tokenReader) texts() (all []secret.Text) {
	for r.expect('['); !r.failed && r.json.PeekKind() == '"'; {
		all = append(all, secret.New(r.text()))
	}
	r.expect(']')
	return all
}

func (r *tokenReader) text() string { return r.expect('"') }

// expect reads a token of this kind, and returns its text if it is one.
func (r *tokenReader) expect(kind jsontext.Kind) string {
	if r.failed {
		return ""
	}
	token, err := r.json.ReadToken()
	if r.failed = err != nil || token.Kind() != kind; r.failed || kind != '"' {
		return ""
	}
	return token.String()
}

func (r *tokenReader) skip() {
	if !r.failed {
		r.failed = r.json.SkipValue() != nil
	}
}
