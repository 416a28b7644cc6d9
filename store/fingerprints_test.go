package store_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events/options/optionstest"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

func fingerprints(t testing.TB, s *store.Store) *store.Fingerprints { return workers(t, s)() }

// workers returns what makes the Fingerprints of workers that have just started.
func workers(t testing.TB, s *store.Store) func() *store.Fingerprints {
	started := envelopes(t, s)
	return func() *store.Fingerprints {
		return must(store.NewFingerprints(store.FingerprintOptions{Store: s, Envelope: started()}))
	}
}

func TestEveryRequiredOptionIsNamed(t *testing.T) {
	optionstest.Required(t, store.NewFingerprints, store.FingerprintOptions{Store: &store.Store{}, Envelope: &envelope.Envelope{}}, "Store", "Envelope")
}

// must returns what a constructor has made of complete options.
func must[T any](made T, err error) T {
	if err != nil {
		panic(err)
	}
	return made
}

func TestAllWorkersMakeOneFingerprintKey(t *testing.T) {
	s := open(t)
	worker := workers(t, s)
	keys := make([]store.FingerprintKey, 8)
	var all sync.WaitGroup
	for i := range keys {
		all.Go(func() {
			var err error
			keys[i], err = worker().Key(t.Context())
			require.NoError(t, err)
		})
	}
	all.Wait()
	token := secret.New("a refresh token")
	for _, key := range keys {
		require.Equal(t, keys[0].Of(token), key.Of(token))
	}
	require.NotEqual(t, keys[0].Of(token), keys[0].Of(secret.New("another")))
	require.Empty(t, keys[0].Of(secret.Text{}))
	require.NotContains(t, fmt.Sprintf("%+v %#v", keys[0], keys[0]), "key:\"")

	other, err := fingerprints(t, open(t)).Key(t.Context())
	require.NoError(t, err)
	require.NotEqual(t, keys[0].Of(token), other.Of(token), "of another installation")
}

// A reader of the database finds the key sealed, and in use under its data key.
func TestTheFingerprintKeyIsKeptSealed(t *testing.T) {
	s := open(t)
	worker := workers(t, s)
	f := worker()
	key, err := f.Key(t.Context())
	require.NoError(t, err)
	stored, err := s.SealedFingerprintKey(t.Context())
	require.NoError(t, err)
	require.Equal(t, key.ID, stored.ID)
	uses, err := s.KeyUses(t.Context(), stored.Sealed.KeyID)
	require.NoError(t, err)
	require.Equal(t, map[string]int{"meta": 1}, uses, "pruning must leave its data key")

	require.NoError(t, f.Reseal(t.Context(), func(string) bool { return false }))
	same, err := s.SealedFingerprintKey(t.Context())
	require.NoError(t, err)
	require.Equal(t, stored, same)
	// An envelope that has just started makes a data key of its own.
	require.NoError(t, worker().Reseal(t.Context(), func(id string) bool { return id == stored.Sealed.KeyID }))
	resealed, err := s.SealedFingerprintKey(t.Context())
	require.NoError(t, err)
	require.NotEqual(t, stored.Sealed.KeyID, resealed.Sealed.KeyID)
	require.NoError(t, s.DeleteKey(t.Context(), stored.Sealed.KeyID))
	later, err := worker().Key(t.Context())
	require.NoError(t, err)
	require.Equal(t, key, later)
}

func TestALostFingerprintKeyIsMadeAnew(t *testing.T) {
	s := open(t)
	worker := workers(t, s)
	f := worker()
	key, err := f.Key(t.Context())
	require.NoError(t, err)
	stored, err := s.SealedFingerprintKey(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.DeleteKey(t.Context(), stored.Sealed.KeyID))
	var made [2]store.FingerprintKey
	for i := range made {
		made[i], err = worker().Key(t.Context())
		require.NoError(t, err)
	}
	require.NotEqual(t, key.ID, made[0].ID)
	require.Equal(t, made[0], made[1])
}

func TestGrantsAreFoundByTheRefreshTokensThatTheyHad(t *testing.T) {
	s := open(t)
	with := func(id, user string, tokens ...string) *store.Grant {
		g := active(id)
		g.UserID, g.Chain = user, &store.Chain{Key: "k"}
		for _, token := range tokens {
			g.Chain = g.Chain.WithCurrent(token, now, true)
		}
		return g
	}
	insert(t, s, with("one", "u", "a", "b"), with("two", "v", "b"), with("three", "v", "c"), with("none", "u"), active("of an earlier release"))
	find := func(fingerprints ...string) []string {
		found, err := s.ByFingerprints(t.Context(), fingerprints)
		require.NoError(t, err)
		return ids(found)
	}
	require.ElementsMatch(t, []string{"one"}, find("a"))
	require.ElementsMatch(t, []string{"one", "two"}, find("b"))
	require.ElementsMatch(t, []string{"one", "two", "three"}, find("a", "b", "c"))
	require.Empty(t, find("d"))
	require.Empty(t, find())

	one, stale := get(t, s, "one"), get(t, s, "two")
	stale.Rev--
	found, err := s.ByFingerprints(t.Context(), []string{"a", "b", "b"}, one, stale)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"one", "two"}, ids(found))
	for _, g := range found {
		if g.ID == "one" {
			require.Same(t, one, g, "it is known")
		} else {
			require.Equal(t, get(t, s, "two"), g, "it has changed")
		}
	}
	again, err := s.ByFingerprints(t.Context(), []string{"a"})
	require.NoError(t, err)
	require.NotSame(t, one, again[0])

	g := get(t, s, "one")
	require.Equal(t, "b", g.Chain.Head())
	require.Equal(t, now, *g.Chain.SpentLink("a").Until)

	page, err := s.ChainedBy(t.Context(), "", "", 10)
	require.NoError(t, err)
	require.Equal(t, []string{"of an earlier release"}, ids(page.Grants))
	page, err = s.ChainedBy(t.Context(), "k", "one", 10)
	require.NoError(t, err)
	require.Equal(t, []string{"three", "two"}, ids(page.Grants))
	keys, err := s.OtherChainKeys(t.Context(), "k")
	require.NoError(t, err)
	require.Empty(t, keys)
	keys, err = s.OtherChainKeys(t.Context(), "another")
	require.NoError(t, err)
	require.Equal(t, []string{"k"}, keys)

	listed, err := s.List(t.Context(), store.Listing{Limit: 10})
	require.NoError(t, err)
	for _, g := range listed {
		require.Nil(t, g.Chain, "a list shows no fingerprints")
	}
}
