package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"
)

// Hash is the SHA-256 of the body of a message.
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Message is one link of a chain.
type Message struct {
	Chain string `json:"chain"`
	// Number counts from 1 without a gap.
	Number uint64 `json:"n"`
	// Previous is the hash of the message before; in the first, that of the chain's
	// name.
	Previous string `json:"prev"`
	// After is the sequence number of the message before; 0 in the first.
	After   uint64   `json:"after"`
	Worker  string   `json:"worker"`
	Records []Record `json:"records"`
}

func hashOf(body []byte) Hash { return sha256.Sum256(body) }

// origin is the Previous of the first message of a chain.
func origin(chain string) Hash { return hashOf([]byte("latchkey audit chain " + chain)) }

// plain replaces characters other than letters, digits, dashes, underscores and those in
// also.
func plain(s, also string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_"+also, r) {
			return r
		}
		return '-'
	}, s)
}

// appendMessage appends a message with encoded records. The names of chains and workers
// need no escapes.
func appendMessage(b []byte, chain, worker string, number uint64, previous Hash, after uint64, records []*entry) []byte {
	b = fmt.Appendf(b, `{"chain":"%s","n":%d,"prev":"%s","after":%d,"worker":"%s","records":[`, chain, number, previous, after, worker)
	for i, e := range records {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, e.data...)
	}
	return append(b, `]}`...)
}

// overhead bounds what appendMessage adds to the records.
const overhead = 1 << 10

var (
	chainForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,256}$`)
	hashForm  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

func decode(body []byte) (Message, error) {
	var m Message
	if err := jsonv2.Unmarshal(body, &m); err != nil {
		return m, errors.New("not the JSON expected")
	}
	switch {
	case !chainForm.MatchString(m.Chain):
		return m, errors.New("no name of a chain")
	case m.Number == 0:
		return m, errors.New("no number")
	case !hashForm.MatchString(m.Previous):
		return m, errors.New("no hash of the message before")
	case len(m.Records) == 0:
		return m, errors.New("no records")
	}
	for i, r := range m.Records {
		if r.Action == "" || r.At.IsZero() {
			return m, fmt.Errorf("record %d lacks its action or time", i+1)
		}
	}
	return m, nil
}
