package store

import (
	"context"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/events"
)

// Scope is what a disconnect covers. Empty: all brokers, or all accounts.
type Scope struct{ User, Broker, Account string }

// Covers reports whether an account at a broker is in the scope.
func (s Scope) Covers(broker, account string) bool {
	return (s.Broker == "" || events.SameBroker(s.Broker, broker)) && (s.Account == "" || s.Account == account)
}

// ids are hashes, so that what remains after an erasure names nobody. The first is
// derived from the broker's key, the second from the broker type as written if that
// differs: earlier releases know no other.
func (s Scope) ids() []string {
	key := events.BrokerKey(s.Broker)
	ids := []string{hashID("revocation", s.User, key, s.Account)}
	if s.Broker != key {
		ids = append(ids, hashID("revocation", s.User, s.Broker, s.Account))
	}
	return ids
}

// UserTag is a hash that stands for a user in the subjects of dead letters.
func UserTag(userID string) string { return hashID("user", userID) }

type revocation struct {
	ID      string    `bson:"_id"`
	At      time.Time `bson:"at"`
	PurgeAt time.Time `bson:"purgeAt"`
}

// RecordRevocation records that a scope was disconnected at a time, so that an older connect
// that arrives late does not bring it back.
func (s *Store) RecordRevocation(ctx context.Context, scope Scope, at, purgeAt time.Time) error {
	for _, id := range scope.ids() {
		if err := s.record(ctx, id, at, purgeAt); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) record(ctx context.Context, id string, at, purgeAt time.Time) error {
	_, err := s.revocations.UpdateOne(ctx, byID(id),
		bson.D{{Key: "$max", Value: bson.D{{Key: "at", Value: Milli(at)}, {Key: "purgeAt", Value: Milli(purgeAt)}}}},
		options.UpdateOne().SetUpsert(true))
	return wrap(err, "recording a disconnect")
}

// TokenRecord is what is recorded of a refresh token whose grant is gone. Other grants may
// still bring it: one login may be published in several connects.
type TokenRecord struct {
	// Spent: a refresh has replaced the token.
	Spent bool
	// Until is how long a refresh may still present it; zero: none does.
	Until time.Time
}

// The ids are hashes of fingerprints, and name no token.
func spentID(fingerprint string) string   { return hashID("spent token", fingerprint) }
func awaitedID(fingerprint string) string { return hashID("awaited token", fingerprint) }

// RecordSpent records that a refresh has replaced a refresh token whose grant is gone. It
// does nothing without a fingerprint.
func (s *Store) RecordSpent(ctx context.Context, fingerprint string, at, purgeAt time.Time) error {
	if fingerprint == "" {
		return nil
	}
	return s.record(ctx, spentID(fingerprint), at, purgeAt)
}

// RecordAwaited records how long a refresh may still present a refresh token whose grant is
// gone.
func (s *Store) RecordAwaited(ctx context.Context, fingerprint string, until time.Time) error {
	return s.record(ctx, awaitedID(fingerprint), until, until)
}

// Revocations returns when each account was last disconnected, if it was. The account ""
// stands for the broker as a whole.
func (s *Store) Revocations(ctx context.Context, user, broker string, accounts []string) (map[string]time.Time, error) {
	revoked, _, err := s.RevocationsAndTokenRecord(ctx, user, broker, accounts, "")
	return revoked, err
}

// RevocationsAndTokenRecord is Revocations together with the record of a refresh token, by its fingerprint
// (empty: none).
func (s *Store) RevocationsAndTokenRecord(ctx context.Context, user, broker string, accounts []string, fingerprint string) (map[string]time.Time, TokenRecord, error) {
	ofAll := append(Scope{User: user}.ids(), Scope{User: user, Broker: broker}.ids()...)
	covering := map[string][]string{"": ofAll} // the ids of all scopes that an account is in
	ids := slices.Clone(ofAll)
	for _, account := range accounts {
		if _, known := covering[account]; known {
			continue
		}
		own := append(Scope{User: user, Account: account}.ids(), Scope{User: user, Broker: broker, Account: account}.ids()...)
		covering[account] = slices.Concat(ofAll, own)
		ids = append(ids, own...)
	}
	var spent, awaited string
	if fingerprint != "" {
		spent, awaited = spentID(fingerprint), awaitedID(fingerprint)
		ids = append(ids, spent, awaited)
	}
	at, err := s.revokedReads.do(ctx, ids)
	if err != nil {
		return nil, TokenRecord{}, err
	}
	last := make(map[string]time.Time)
	for account, covered := range covering {
		for _, id := range covered {
			if t, ok := at[id]; ok && t.After(last[account]) {
				last[account] = t
			}
		}
	}
	_, isSpent := at[spent] // no record has an empty id
	return last, TokenRecord{Spent: isSpent, Until: at[awaited]}, nil
}

// RevokedScopes returns when each of the scopes was last disconnected, if that is
// recorded.
func (s *Store) RevokedScopes(ctx context.Context, scopes []Scope) (map[Scope]time.Time, error) {
	var ids []string
	for _, scope := range scopes {
		ids = append(ids, scope.ids()...)
	}
	at, err := s.revokedReads.do(ctx, ids)
	if err != nil {
		return nil, err
	}
	last := map[Scope]time.Time{}
	for _, scope := range scopes {
		for _, id := range scope.ids() {
			if t, ok := at[id]; ok && t.After(last[scope]) {
				last[scope] = t
			}
		}
	}
	return last, nil
}

// maxSought is how many values one command looks for: MongoDB takes commands of up to
// 16 MiB.
const maxSought = 10_000

// revokedAt reads the times of revocations for several callers, who share the map.
func (s *Store) revokedAt(ctx context.Context, ids [][]string) []outcome[map[string]time.Time] {
	at := map[string]time.Time{}
	for sought := range slices.Chunk(slices.Concat(ids...), maxSought) {
		cursor, err := s.revocations.Find(ctx, anyOf("_id", sought))
		found, err := decodeAll[revocation](ctx, cursor, err, "reading disconnects")
		if err != nil {
			return outcomes(len(ids), at, err)
		}
		for _, r := range found {
			at[r.ID] = r.At
		}
	}
	return outcomes(len(ids), at, nil)
}

// PurgeRevocations deletes the records that have served their time.
func (s *Store) PurgeRevocations(ctx context.Context, now time.Time) error {
	_, err := s.revocations.DeleteMany(ctx, bson.D{{Key: "purgeAt", Value: bson.D{{Key: "$lt", Value: Milli(now)}}}})
	return wrap(err, "dropping old disconnects")
}
