package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/events"
)

// Scope is what a disconnect covers. An empty broker or account covers all.
type Scope struct{ User, Broker, Account string }

// Covers reports whether an account of a broker falls under the scope.
func (s Scope) Covers(broker, account string) bool {
	return (s.Broker == "" || events.SameBroker(s.Broker, broker)) && (s.Account == "" || s.Account == account)
}

// ids are hashes, so that what remains after an erasure names nobody. The first
// is by the broker's key. The other, where there is one, is by the broker type as
// written, which is the only one that earlier releases write and look for.
func (s Scope) ids() []string {
	ids := []string{hashID("revocation", s.User, events.BrokerKey(s.Broker), s.Account)}
	if as := hashID("revocation", s.User, s.Broker, s.Account); as != ids[0] {
		ids = append(ids, as)
	}
	return ids
}

// UserTag stands for a user in the subjects of dead letters. It is a hash, so
// that it is a subject token of one length and names nobody.
func UserTag(userID string) string { return hashID("user", userID) }

type revocation struct {
	ID      string    `bson:"_id"`
	At      time.Time `bson:"at"`
	PurgeAt time.Time `bson:"purgeAt"`
}

// Revoke remembers that what lies in the scope was disconnected at a time, so
// that an older connect which arrives late does not bring it back.
func (s *Store) Revoke(ctx context.Context, scope Scope, at, purgeAt time.Time) error {
	for _, id := range scope.ids() {
		if err := s.remember(ctx, id, at, purgeAt); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) remember(ctx context.Context, id string, at, purgeAt time.Time) error {
	_, err := s.revocations.UpdateOne(ctx, bson.D{{Key: "_id", Value: id}},
		bson.D{{Key: "$max", Value: bson.D{{Key: "at", Value: Milli(at)}, {Key: "purgeAt", Value: Milli(purgeAt)}}}},
		options.UpdateOne().SetUpsert(true))
	if err != nil {
		return fmt.Errorf("recording a disconnect: %w", err)
	}
	return nil
}

// Fate is what is remembered of a refresh token whose grant is gone. Other grants may
// get it all the same: what is published of one login may come in several connects.
type Fate struct {
	// Spent: a refresh has replaced it.
	Spent bool
	// Until is how long a refresh that presents it may be under way; zero: none is.
	Until time.Time
}

// The ids are hashes of fingerprints, and name no token.
func spentID(fingerprint string) string   { return hashID("spent token", fingerprint) }
func awaitedID(fingerprint string) string { return hashID("awaited token", fingerprint) }

// Spend remembers that a refresh has replaced a refresh token whose grant is gone, by
// its fingerprint; none: there is nothing to remember.
func (s *Store) Spend(ctx context.Context, fingerprint string, at, purgeAt time.Time) error {
	if fingerprint == "" {
		return nil
	}
	return s.remember(ctx, spentID(fingerprint), at, purgeAt)
}

// Await remembers until when a refresh may be under way that presents a refresh token
// whose grant is gone, by its fingerprint.
func (s *Store) Await(ctx context.Context, fingerprint string, until time.Time) error {
	return s.remember(ctx, awaitedID(fingerprint), until, until)
}

// Revoked returns, for each account, when it was last disconnected; accounts
// that never were are absent. The account "" stands for the broker as a whole.
func (s *Store) Revoked(ctx context.Context, user, broker string, accounts []string) (map[string]time.Time, error) {
	revoked, _, err := s.Remembered(ctx, user, broker, accounts, "")
	return revoked, err
}

// Remembered is Revoked, and also returns what is remembered of a refresh token, by its
// fingerprint; empty for none.
func (s *Store) Remembered(ctx context.Context, user, broker string, accounts []string, fingerprint string) (map[string]time.Time, Fate, error) {
	scopesOf := func(account string) []Scope {
		return []Scope{{user, "", ""}, {user, broker, ""}, {user, "", account}, {user, broker, account}}
	}
	var ids []string
	for _, account := range append([]string{""}, accounts...) {
		for _, scope := range scopesOf(account) {
			ids = append(ids, scope.ids()...)
		}
	}
	if fingerprint != "" {
		ids = append(ids, spentID(fingerprint), awaitedID(fingerprint))
	}
	at, err := s.revokedReads.do(ctx, ids)
	if err != nil {
		return nil, Fate{}, err
	}
	last := make(map[string]time.Time)
	for _, account := range append([]string{""}, accounts...) {
		for _, scope := range scopesOf(account) {
			for _, id := range scope.ids() {
				if t, ok := at[id]; ok && t.After(last[account]) {
					last[account] = t
				}
			}
		}
	}
	if fingerprint == "" {
		return last, Fate{}, nil
	}
	_, spent := at[spentID(fingerprint)]
	return last, Fate{Spent: spent, Until: at[awaitedID(fingerprint)]}, nil
}

// maxSought is how many disconnects one command looks for. A connect asks for
// several of each of its accounts, and MongoDB takes commands of 16 MiB.
const maxSought = 10_000

// revokedAt reads the times of revocations for all who ask, who share the map.
func (s *Store) revokedAt(ctx context.Context, ids [][]string) []outcome[map[string]time.Time] {
	at := map[string]time.Time{}
	for sought := range slices.Chunk(slices.Concat(ids...), maxSought) {
		cursor, err := s.revocations.Find(ctx, anyOf("_id", sought))
		found, err := collect[revocation](ctx, cursor, err, "reading disconnects")
		if err != nil {
			return failed[map[string]time.Time](len(ids), err)
		}
		for _, r := range found {
			at[r.ID] = r.At
		}
	}
	all := make([]outcome[map[string]time.Time], len(ids))
	for i := range all {
		all[i].out = at
	}
	return all
}

// PurgeRevocations drops what need not be remembered any more.
func (s *Store) PurgeRevocations(ctx context.Context, now time.Time) error {
	if _, err := s.revocations.DeleteMany(ctx, bson.D{{Key: "purgeAt", Value: bson.D{{Key: "$lt", Value: Milli(now)}}}}); err != nil {
		return fmt.Errorf("dropping old disconnects: %w", err)
	}
	return nil
}
