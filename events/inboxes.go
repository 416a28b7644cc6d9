package events

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Inboxes says which reply subjects belong to clients. A service with more permissions
// than its callers must reply nowhere else: a caller could name a subject to which only
// the service may publish.
type Inboxes struct{ prefixes [][]string }

const (
	// ImportedReply is the first token of the reply subject that a NATS server gives a
	// request across accounts. Servers refuse it from clients.
	ImportedReply = "_R_"
	// routedReply is the first of three tokens that a NATS server puts before the reply
	// subject of a request across a gateway. Servers refuse it from clients.
	routedReply  = "_GR_"
	routedTokens = 3
)

// ErrInboxPrefix is wrapped by every refusal of an inbox prefix.
var ErrInboxPrefix = errors.New("invalid inbox prefix")

// NewInboxes returns the inboxes with the given prefixes: whole subject tokens, the last
// of which may end in a * for the rest of the token ("_INBOX_*" covers
// _INBOX_portfolio). The error wraps ErrInboxPrefix: a prefix is no subject, or covers
// subjects of NATS or the installation.
func NewInboxes(subjects Subjects, prefixes ...string) (Inboxes, error) {
	var in Inboxes
	for _, prefix := range prefixes {
		tokens := strings.Split(prefix, ".")
		if stem := strings.TrimSuffix(prefix, "*"); stem == "" || strings.HasPrefix(stem, "$") || strings.HasSuffix(stem, ".") || !literal(strings.Split(stem, ".")) {
			return Inboxes{}, fmt.Errorf("%w: %q is not one or more subject tokens, the last of which may end in *", ErrInboxPrefix, prefix)
		}
		if slices.ContainsFunc(subjects.roots(), func(own []string) bool { return collide(tokens, own) }) {
			return Inboxes{}, fmt.Errorf("%w: %q covers subjects of Latchkey's own", ErrInboxPrefix, prefix)
		}
		in.prefixes = append(in.prefixes, tokens)
	}
	return in, nil
}

// Contains reports whether a reply subject is an inbox.
func (in Inboxes) Contains(reply string) bool {
	tokens := strings.Split(ReplyInbox(reply), ".")
	if !literal(tokens) {
		return false
	}
	if tokens[0] == ImportedReply {
		return len(tokens) > 1
	}
	return slices.ContainsFunc(in.prefixes, func(prefix []string) bool {
		return len(tokens) > len(prefix) && collide(tokens, prefix)
	})
}

// Overlaps reports whether a subject filter matches some inbox.
func (in Inboxes) Overlaps(filter string) bool {
	tokens := strings.Split(filter, ".")
	return slices.ContainsFunc(append([][]string{{ImportedReply}}, in.prefixes...), func(prefix []string) bool {
		longer := len(tokens) > len(prefix) || tokens[len(tokens)-1] == ">"
		return longer && collide(tokens, prefix)
	})
}

// FilterMatches reports whether a stream with a subject filter stores messages on a subject.
func FilterMatches(filter, subject string) bool {
	f, tokens := strings.Split(filter, "."), strings.Split(subject, ".")
	if f[len(f)-1] == ">" {
		return len(tokens) >= len(f) && collide(f, tokens)
	}
	return len(tokens) == len(f) && collide(f, tokens)
}

// ReplyInbox returns the caller's reply subject, without the tokens of gateways.
func ReplyInbox(reply string) string {
	if !strings.HasPrefix(reply, routedReply+".") {
		return reply
	}
	if parts := strings.SplitN(reply, ".", routedTokens+1); len(parts) > routedTokens {
		return parts[routedTokens]
	}
	return ""
}

// collide reports whether one subject can begin with both a and b, whose tokens may end
// in wildcards.
func collide(a, b []string) bool {
	for i := range min(len(a), len(b)) {
		x, xOpen := strings.CutSuffix(strings.TrimSuffix(a[i], ">"), "*")
		y, yOpen := strings.CutSuffix(strings.TrimSuffix(b[i], ">"), "*")
		xOpen, yOpen = xOpen || a[i] == ">", yOpen || b[i] == ">"
		switch {
		case xOpen && yOpen && !strings.HasPrefix(x, y) && !strings.HasPrefix(y, x),
			xOpen && !yOpen && !strings.HasPrefix(y, x),
			yOpen && !xOpen && !strings.HasPrefix(x, y),
			!xOpen && !yOpen && x != y:
			return false
		case a[i] == ">" || b[i] == ">":
			return true
		}
	}
	return true
}

// literal reports whether the tokens are a subject without wildcards.
func literal(tokens []string) bool {
	return !slices.ContainsFunc(tokens, func(token string) bool {
		return token == "" || strings.ContainsAny(token, "*> \t\r\n\f\x00")
	})
}

// roots are the first tokens of all subjects of the installation.
func (s Subjects) roots() [][]string {
	if s.Prefix != "" {
		return [][]string{{s.Prefix}}
	}
	var roots [][]string
	for _, subject := range []string{IntegrationConnected, TokenStored, s.RefreshDue(), s.Canary()} {
		root, _, _ := strings.Cut(subject, ".")
		roots = append(roots, []string{root})
	}
	return roots
}
