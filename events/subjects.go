// Package events is the language that Latchkey speaks on NATS: subjects,
// message bodies and their codecs. It depends on nothing else of the project,
// so that publishers and subscribers can import it alone.
package events

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxUserIDChars bounds a user id, in characters, as Mesh does
// (@meshconnect/node-api 2.0.28, GetLinkTokenRequest). Encoded into a NATS subject
// such an id has up to 3,600 bytes; NATS takes subjects of about 4,000.
const MaxUserIDChars = 300

// Names of the messages, which are at the same time the last part of a
// CloudEvents type and the first part of a subject.
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

// LifecycleKinds lists the events about a grant that subscribers may see.
var LifecycleKinds = []string{TokenStored, TokenRefreshed, TokenExpiring, TokenExpired, TokenRevoked, TokenRemoval}

// Subjects builds every subject and stream name of one installation. The zero
// value is an installation without a prefix; a prefix keeps several apart in
// one NATS account.
type Subjects struct {
	// Prefix is empty or one subject token.
	Prefix string
	// Partitions is over how many streams the refreshes are spread; 0 means 1.
	// Who does not deal with refreshes need not know it.
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

// Rejected is where the publishers of one user's connects hear which of them
// changed nothing.
func (s Subjects) Rejected(userID string) string {
	return s.subject(IntegrationRejected + "." + EncodeUserID(userID))
}

// RejectedAll matches those of every user.
func (s Subjects) RejectedAll() string { return s.subject(IntegrationRejected + ".*") }

// Lifecycle is the subject of a lifecycle event about one user; it ends in the
// user, so that NATS permissions can restrict who may see whom.
func (s Subjects) Lifecycle(kind, userID string) string {
	return s.subject(kind + "." + EncodeUserID(userID))
}

// LifecycleAll matches the events of one kind for every user.
func (s Subjects) LifecycleAll(kind string) string { return s.subject(kind + ".*") }

// TokenGet is the subject on which the current tokens of a user are asked for.
func (s Subjects) TokenGet(userID string) string {
	return s.subject("token.get." + EncodeUserID(userID))
}

// TokenGetAll matches the requests for every user.
func (s Subjects) TokenGetAll() string { return s.subject("token.get.*") }

// TokenMFA is the subject that takes a code of a user.
func (s Subjects) TokenMFA(userID string) string {
	return s.subject("token.mfa." + EncodeUserID(userID))
}

// TokenMFAAll matches the codes of every user.
func (s Subjects) TokenMFAAll() string { return s.subject("token.mfa.*") }

// TokenKeys is where the keys that publishers seal to are asked for.
func (s Subjects) TokenKeys() string { return s.subject("token.keys") }

// RefreshSchedule holds the pending schedule of one grant: a message there
// replaces the one before it, and purging the subject cancels it.
func (s Subjects) RefreshSchedule(grantID string) string {
	return s.RefreshPartition(grantID).Schedule(grantID)
}

// What follows belongs to the first partition, which is the only one unless
// Partitions says otherwise.

// RefreshScheduleAll matches every grant's schedule.
func (s Subjects) RefreshScheduleAll() string { return s.subject("refresh.schedule.*") }

// RefreshDue is where JetStream delivers a schedule at its time.
func (s Subjects) RefreshDue() string { return s.subject("refresh.due") }

// RefreshUrgent is where a schedule is delivered that must not wait behind a
// backlog: the grant's refresh token may soon be refused.
func (s Subjects) RefreshUrgent() string { return s.subject("refresh.urgent") }

// Recovery holds a sealed answer of Mesh that could not be written to the
// database at once.
func (s Subjects) Recovery(grantID string) string { return s.subject("latchkey.recovery." + grantID) }

// RecoveryPart holds parts of a sealed answer that one message can't hold.
func (s Subjects) RecoveryPart(grantID string) string { return s.Recovery(grantID) + partSuffix }

// RecoveryParts matches every grant's parts.
func (s Subjects) RecoveryParts() string { return s.RecoveryPart("*") }

// partSuffix ends the subjects of parts.
const partSuffix = ".part"

// RecoveryAll matches every grant's recovery entries.
func (s Subjects) RecoveryAll() string { return s.subject("latchkey.recovery.*") }

// UnknownTag stands in the subject of a dead letter of which it is not known
// whom it concerns.
const UnknownTag = "unknown"

// SeveralTag stands in the subject of a dead letter that names several users. It
// lists their tags itself.
const SeveralTag = "several"

// DeadLetter is where a message that can't be handled is parked, by a tag of
// whom it concerns, so that an erasure finds it, and the name of the message it
// was.
func (s Subjects) DeadLetter(tag, name string) string {
	return s.subject("latchkey.deadletter." + tag + "." + name)
}

// DeadLettersOf matches the dead letters with a tag.
func (s Subjects) DeadLettersOf(tag string) string {
	return s.subject("latchkey.deadletter." + tag + ".>")
}

// DeadLetterPart holds parts of the body of dead letters with a tag that one
// message can't hold.
func (s Subjects) DeadLetterPart(tag string) string {
	return s.subject("latchkey.deadletter." + tag + partSuffix)
}

// DeadLetterParts matches the parts of every dead letter.
func (s Subjects) DeadLetterParts() string { return s.DeadLetterPart("*") }

// DeadLetterAll matches every dead letter.
func (s Subjects) DeadLetterAll() string { return s.subject("latchkey.deadletter.>") }

// Audit is where one chain of the audit log is written.
func (s Subjects) Audit(chain string) string { return s.subject("latchkey.audit." + chain) }

// AuditAll matches every chain.
func (s Subjects) AuditAll() string { return s.subject("latchkey.audit.*") }

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

// CheckUserID says whether id may name a user. Any UTF-8 text is allowed but
// for control and formatting characters, which serve only to make two ids look
// alike or to break a terminal.
func CheckUserID(id string) error {
	switch {
	case id == "":
		return fmt.Errorf("%w: empty", ErrUserID)
	case !utf8.ValidString(id):
		return fmt.Errorf("%w: not UTF-8", ErrUserID)
	}
	if len(id) > MaxUserIDChars { // so that most need not be counted
		if n := utf8.RuneCountInString(id); n > MaxUserIDChars {
			return fmt.Errorf("%w: %d characters, at most %d", ErrUserID, n, MaxUserIDChars)
		}
	}
	if r, found := unseen(id); found {
		return fmt.Errorf("%w: contains the control or formatting character %U", ErrUserID, r)
	}
	return nil
}

// unseen finds a control or formatting character.
func unseen(s string) (r rune, found bool) {
	for _, r := range s {
		if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			return r, true
		}
	}
	return 0, false
}

const hexDigits = "0123456789ABCDEF"

// EncodeUserID turns a user id into one valid subject token: letters, digits,
// '-' and '_' stay, every other byte becomes %XX. Different ids never share a
// token.
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

// DecodeUserID is the inverse of EncodeUserID. It accepts the canonical form
// only, so that one user has one token.
func DecodeUserID(token string) (string, error) {
	if n := len(token); 0 < n && n <= MaxUserIDChars && allPlain(token) {
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

// allPlain reports whether a user id stands for itself in subjects.
func allPlain(id string) bool {
	for i := range len(id) {
		if !plainInSubject(id[i]) {
			return false
		}
	}
	return true
}

func plainInSubject(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}
