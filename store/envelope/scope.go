package envelope

import (
	"crypto/sha256"
	"encoding/hex"
	"hash/fnv"
	"strconv"
)

// scope is whose secrets one active data key seals: those of a share of all
// users, or of one user.
type scope struct {
	// name tells scopes apart in memory.
	name string
	// stored is what the wrapped keys of the scope carry.
	stored string
}

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
func (e *Envelope) ByUser() bool { return e.opts.PerUser || len(e.shards) > 1 }

func (e *Envelope) scopeOf(user string) scope {
	if e.opts.PerUser {
		own := ScopeOf(user)
		return scope{name: own, stored: own}
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(user)) // never fails
	return scope{name: e.shards[h.Sum64()%uint64(len(e.shards))]}
}

// shardNames returns the names of n shards.
func shardNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = strconv.Itoa(i)
	}
	return names
}
