package envelope

import (
	"crypto/sha256"
	"encoding/hex"
)

// ScopeOf returns the hash that marks the data keys of one user. It is empty for no user.
func ScopeOf(user string) string {
	if user == "" {
		return ""
	}
	sum := sha256.Sum256([]byte("latchkey data key scope\x00" + user))
	return hex.EncodeToString(sum[:16])
}

// ByUser reports whether each user has data keys of their own.
func (e *Envelope) ByUser() bool { return e.opts.PerUser }

// scopeOf returns the scope of a user's data keys; empty: all users share them.
func (e *Envelope) scopeOf(user string) string {
	if e.opts.PerUser {
		return ScopeOf(user)
	}
	return ""
}
