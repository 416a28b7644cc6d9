package envelope

import (
	"crypto/sha256"
	"encoding/hex"
)

// ScopeOf returns what the data keys of a user carry where each user has their
// own: a hash, which does not tell the user. It is empty for no user.
func ScopeOf(user string) string {
	if user == "" {
		return ""
	}
	sum := sha256.Sum256([]byte("latchkey data key scope\x00" + user))
	return hex.EncodeToString(sum[:16])
}

// ByUser reports whether it depends on the user which data key seals.
func (e *Envelope) ByUser() bool { return e.opts.PerUser }

// scopeOf returns whose secrets the data key of a user seals: that user's, or
// ("") everybody's.
func (e *Envelope) scopeOf(user string) string {
	if e.opts.PerUser {
		return ScopeOf(user)
	}
	return ""
}
