package store

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"slices"

	"github.com/latchkey/latchkey/events"
)

// GrantID derives the id of the grant of these accounts, which is the same whatever the
// order of the accounts and the case of the broker type. It is a hash, since it is part
// of subjects, which a NATS server may store in the clear.
func GrantID(userID, brokerType string, accountIDs ...string) string {
	return FormerGrantID(userID, events.BrokerKey(brokerType), accountIDs...)
}

// FormerGrantID derives the id as earlier releases did: from the broker type as written.
func FormerGrantID(userID, brokerType string, accountIDs ...string) string {
	ids := slices.Clone(accountIDs)
	slices.Sort(ids)
	return hashID("accounts", append([]string{userID, brokerType}, ids...)...)
}

// AlternativeGrantID derives another id for a grant if a grant that has more accounts by now
// has the id of its accounts.
func AlternativeGrantID(id string) string { return hashID("beside", id) }

// DelayedGrantID derives the id of a grant whose accounts are unknown yet from the
// fingerprint of its refresh token, so that nobody can test a guess of the token by it.
func DelayedGrantID(userID, brokerType, fingerprint string) string {
	return hashID("delayed by fingerprint", userID, events.BrokerKey(brokerType), fingerprint)
}

// FormerDelayedGrantID derives the id as earlier releases did: from the refresh token,
// and from the broker type as written or, later, its key.
func FormerDelayedGrantID(userID, brokerType, refreshToken string) string {
	return hashID("delayed", userID, brokerType, refreshToken)
}

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func hashID(kind string, parts ...string) string {
	var room [256]byte // most ids need no more
	in := room[:0]
	add := func(p string) {
		in = append(binary.BigEndian.AppendUint64(in, uint64(len(p))), p...)
	}
	add("latchkey grant")
	add(kind)
	for _, p := range parts {
		add(p)
	}
	sum := sha256.Sum256(in)
	return idEncoding.EncodeToString(sum[:20])
}
