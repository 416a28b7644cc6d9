package events

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxUserIDChars is Mesh's limit for a user id, in characters (@meshconnect/node-api
// 2.0.28, GetLinkTokenRequest). In a NATS subject such an id has up to 3,600 bytes; NATS
// allows subjects of about 4,000.
const MaxUserIDChars = 300

// Names of the messages: the end of their CloudEvents types and the first part of their
// subjects.
const (
	IntegrationConnected    = "integration.connected"
	IntegrationDisconnected = "integration.disconnected"

	TokenStored    = "token.stored"
	TokenRefreshed = "token.refreshed"
	TokenExpiring  = "token.expiring"
	TokenExpired   = "token.expired"
	TokenRevoked   = "token.revoked"
	TokenRemoval   = "token.removal"
)

// LifecycleKinds are the events about grants.
var LifecycleKinds = []string{TokenStored, TokenRefreshed, TokenExpiring, TokenExpired, TokenRevoked, TokenRemoval}

// Subjects builds the subjects and stream names of an installation. Several installations
// in one NATS account need different prefixes.
type Subjects struct {
	// Prefix is empty or one subject token.
	Prefix string
	// Partitions is the number of streams that share the refreshes, and of those that share
	// the events and the audit log; 0 means 1. Publishers, subscribers and callers need not
	// know it.
	Partitions int
}

func (s Subjects) subject(rest string) string {
	if s.Prefix == "" {
		return rest
	}
	return s.Prefix + "." + rest
}

func (s Subjects) stream(name string) string {
	if s.Prefix == "" {
		return "LATCHKEY_" + name
	}
	return strings.ToUpper(s.Prefix) + "_LATCHKEY_" + name
}

// Connected is where publishers announce a connected integration.
func (s Subjects) Connected() string { return s.subject(IntegrationConnected) }

// Disconnected is where publishers announce that a user disconnected.
func (s Subjects) Disconnected() string { return s.subject(IntegrationDisconnected) }

// Rejected is where workers announce which connects of a user changed nothing.
func (s Subjects) Rejected(userID string) string {
	return s.subject(IntegrationRejected + "." + EncodeUserID(userID))
}

// RejectedAll matches those of every user.
func (s Subjects) RejectedAll() string { return s.subject(IntegrationRejected + ".*") }

// Lifecycle is the subject of a lifecycle event. It ends in the user, so that NATS
// permissions can restrict which users a subscriber sees.
func (s Subjects) Lifecycle(kind, userID string) string {
	return s.subject(kind + "." + EncodeUserID(userID))
}

// LifecycleAll matches the events of one kind for every user.
func (s Subjects) LifecycleAll(kind string) string { return s.subject(kind + ".*") }

// LifecycleOf matches the events of every kind for a user.
func (s Subjects) LifecycleOf(userID string) string {
	return s.subject("token.*." + EncodeUserID(userID))
}

// LifecycleEvents matches the events of every kind for every user.
func (s Subjects) LifecycleEvents() string { return s.subject("token.*.*") }

// TokenGet is where clients request the current tokens of a user.
func (s Subjects) TokenGet(userID string) string {
	return s.subject("token.get." + EncodeUserID(userID))
}

// TokenGetAll matches the requests for every user.
func (s Subjects) TokenGetAll() string { return s.subject("token.get.*") }

// TokenMFA is where clients send a code of a user.
func (s Subjects) TokenMFA(userID string) string {
	return s.subject("token.mfa." + EncodeUserID(userID))
}

// TokenMFAAll matches the codes of every user.
func (s Subjects) TokenMFAAll() string { return s.subject("token.mfa.*") }

// TokenKeys is where publishers request the keys to seal to.
func (s Subjects) TokenKeys() string { return s.subject("token.keys") }

// RefreshSchedule is the subject of the pending schedule of a grant. A new message
// replaces the last one; to cancel it, purge the subject.
func (s Subjects) RefreshSchedule(grantID string) string {
	return s.RefreshPartition(grantID).Schedule(grantID)
}

// RefreshScheduleAll matches every schedule of the first partition.
func (s Subjects) RefreshScheduleAll() string { return s.subject("refresh.schedule.*") }

// RefreshDue is where JetStream publishes a schedule of the first partition at its time.
func (s Subjects) RefreshDue() string { return s.subject("refresh.due") }

// RefreshUrgent is RefreshDue for schedules that must not wait behind a backlog, because
// the institution may soon refuse the grant's refresh token.
func (s Subjects) RefreshUrgent() string { return s.subject("refresh.urgent") }

// Recovery is where an encrypted answer of Mesh waits that could not be written to the
// database at once.
func (s Subjects) Recovery(grantID string) string { return s.subject("latchkey.recovery." + grantID) }

// RecoveryPart is where the parts of an answer go that is too large for one message.
func (s Subjects) RecoveryPart(grantID string) string { return s.Recovery(grantID) + partSuffix }

// RecoveryParts matches every grant's parts.
func (s Subjects) RecoveryParts() string { return s.RecoveryPart("*") }

const partSuffix = ".part"

// RecoveryAll matches every grant's recovery entries.
func (s Subjects) RecoveryAll() string { return s.subject("latchkey.recovery.*") }

// UnknownTag is the tag of a dead letter whose user is not known.
const UnknownTag = "unknown"

// SeveralTag is the tag of a dead letter that names several users. It lists their tags.
const SeveralTag = "several"

// DeadLetter is the subject of a dead letter: the tag of its user, by which an erasure
// finds it, and the name of the message.
func (s Subjects) DeadLetter(tag, name string) string {
	return s.subject("latchkey.deadletter." + tag + "." + name)
}

// DeadLettersOf matches the dead letters with a tag.
func (s Subjects) DeadLettersOf(tag string) string {
	return s.subject("latchkey.deadletter." + tag + ".>")
}

// DeadLetterPart is where the parts of dead letters go that are too large for one
// message.
func (s Subjects) DeadLetterPart(tag string) string {
	return s.subject("latchkey.deadletter." + tag + partSuffix)
}

// DeadLetterParts matches the parts of all dead letters.
func (s Subjects) DeadLetterParts() string { return s.DeadLetterPart("*") }

// DeadLetterAll matches every dead letter.
func (s Subjects) DeadLetterAll() string { return s.subject("latchkey.deadletter.>") }

// Canary is a subject that nobody publishes to.
func (s Subjects) Canary() string { return s.subject("latchkey.canary") }

// Names of the JetStream streams.
func (s Subjects) IntegrationStream() string { return s.stream("INTEGRATION") }
func (s Subjects) RefreshStream() string     { return s.stream("REFRESH") }
func (s Subjects) LifecycleStream() string   { return s.stream("LIFECYCLE") }
func (s Subjects) RecoveryStream() string    { return s.stream("RECOVERY") }
func (s Subjects) CanaryStream() string      { return s.stream("CANARY") }
func (s Subjects) DeadLetterStream() string  { return s.stream("DEADLETTER") }
func (s Subjects) AuditStream() string       { return s.stream("AUDIT") }

// ErrUserID is wrapped by every refusal of a user id.
var ErrUserID = errors.New("invalid user id")

// CheckUserID returns why id is no valid user id. Any UTF-8 text is valid without control
// and formatting characters, which can make two ids look alike or break a terminal.
func CheckUserID(id string) error {
	switch n := utf8.RuneCountInString(id); {
	case n == 0:
		return fmt.Errorf("%w: empty", ErrUserID)
	case !utf8.ValidString(id):
		return fmt.Errorf("%w: not UTF-8", ErrUserID)
	case n > MaxUserIDChars:
		return fmt.Errorf("%w: %d characters, at most %d", ErrUserID, n, MaxUserIDChars)
	}
	if r, found := invisible(id); found {
		return fmt.Errorf("%w: contains the control or formatting character %U", ErrUserID, r)
	}
	return nil
}

// invisible finds a control or formatting character.
func invisible(s string) (r rune, found bool) {
	for _, r := range s {
		if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			return r, true
		}
	}
	return 0, false
}

const hexDigits = "0123456789ABCDEF"

// EncodeUserID encodes a user id as a subject token: every byte but letters, digits, '-'
// and '_' becomes %XX. Different ids have different tokens.
func EncodeUserID(id string) string {
	var b strings.Builder
	for i := range len(id) {
		c := id[i]
		if plainInSubject(c) {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hexDigits[c>>4])
		b.WriteByte(hexDigits[c&15])
	}
	return b.String()
}

// DecodeUserID is the inverse of EncodeUserID. It accepts no other encoding, so that a
// user has one token.
func DecodeUserID(token string) (string, error) {
	encoded := func(r rune) bool { return r >= utf8.RuneSelf || !plainInSubject(byte(r)) }
	if n := len(token); 0 < n && n <= MaxUserIDChars && !strings.ContainsFunc(token, encoded) {
		return token, nil
	}
	var b strings.Builder
	for i := 0; i < len(token); i++ {
		c := token[i]
		switch {
		case plainInSubject(c):
			b.WriteByte(c)
		case c == '%' && i+2 < len(token):
			hi, lo := strings.IndexByte(hexDigits, token[i+1]), strings.IndexByte(hexDigits, token[i+2])
			if hi < 0 || lo < 0 || plainInSubject(byte(hi<<4|lo)) {
				return "", fmt.Errorf("%w: bad escape in subject", ErrUserID)
			}
			b.WriteByte(byte(hi<<4 | lo))
			i += 2
		default:
			return "", fmt.Errorf("%w: bad character in subject", ErrUserID)
		}
	}
	id := b.String()
	return id, CheckUserID(id)
}

func plainInSubject(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}
