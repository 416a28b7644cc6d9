package imports

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
)

// sieve judges lines. It remembers a hash of every refresh token: one in two lines would
// become two grants, and be spent twice.
type sieve struct {
	start time.Time
	seen  map[[16]byte]sighting
}

// sighting is the first line with a refresh token.
type sighting struct {
	line int64
	sum  [16]byte // of the line
}

// verdict says what to do with a line: to publish its body, or nothing.
type verdict struct {
	body     []byte
	repeated bool
	reason   string // why it is rejected
}

func (s *sieve) judge(line []byte, number int64) verdict {
	if len(bytes.TrimSpace(line)) == 0 {
		return verdict{}
	}
	body, in, err := message(line, s.start)
	if err != nil {
		return verdict{reason: err.Error()}
	}
	sum := short(line)
	tokens := refreshTokens(in.Payload)
	for _, token := range tokens {
		switch first, known := s.seen[short([]byte(token.Reveal()))]; {
		case known && first.sum == sum:
			return verdict{repeated: true}
		case known:
			return verdict{reason: fmt.Sprintf("the same refresh token as in line %d: accounts that share one must stand in one line, as one payload", first.line)}
		}
	}
	for _, token := range tokens {
		s.seen[short([]byte(token.Reveal()))] = sighting{number, sum}
	}
	return verdict{body: body}
}

func refreshTokens(p *events.LinkPayload) []secret.Text {
	var out []secret.Text
	if p.AccessToken != nil {
		for _, account := range p.AccessToken.AccountTokens {
			if !account.RefreshToken.Empty() {
				out = append(out, account.RefreshToken)
			}
		}
	}
	if p.DelayedAuth != nil {
		out = append(out, p.DelayedAuth.RefreshToken)
	}
	return out
}

func short(b []byte) [16]byte {
	sum := sha256.Sum256(b)
	return [16]byte(sum[:16])
}
