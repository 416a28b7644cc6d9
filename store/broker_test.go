package store

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
)

// spelled returns a text with the case of some of its characters changed.
func spelled(t *rapid.T, text string) string {
	var b strings.Builder
	for _, r := range text {
		for range rapid.IntRange(0, 3).Draw(t, "case") {
			r = unicode.SimpleFold(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}

// TestBrokersThatDifferInCaseAreOne: whatever is found by a broker type is found by
// every way to write it, and by no other.
func TestBrokersThatDifferInCaseAreOne(t *testing.T) {
	name := rapid.OneOf(rapid.SampledFrom([]string{"coinbase", "weBull", "binanceOAuth", "öhmi", "kraken", "a.b*", "σας"}), rapid.StringN(1, 8, 64))
	rapid.Check(t, func(t *rapid.T) {
		one := name.Draw(t, "one")
		other := rapid.OneOf(rapid.Just(spelled(t, one)), name).Draw(t, "other")
		same := events.SameBroker(one, other)

		require.Equal(t, same, GrantID("u", one, "a", "b") == GrantID("u", other, "b", "a"))
		require.Equal(t, same, DelayedGrantID("u", one, "r") == DelayedGrantID("u", other, "r"))
		require.Equal(t, one == other, FormerGrantID("u", one, "a") == FormerGrantID("u", other, "a"))
		require.Equal(t, one == other, FormerDelayedGrantID("u", one, "r") == FormerDelayedGrantID("u", other, "r"))
		for _, account := range []string{"", "a"} {
			require.Equal(t, same, Scope{User: "u", Broker: one, Account: account}.Covers(other, "a"))
			require.Equal(t, same, Scope{User: "u", Broker: one, Account: account}.ids()[0] == Scope{User: "u", Broker: other, Account: account}.ids()[0])
		}
	})
}

func database(t *testing.T) *Store {
	s, err := Open(t.Context(), Options{URI: secret.New(enginestest.MongoDB(t).URI()), Database: enginestest.Name(t), Timeout: 20 * time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close(t.Context()) })
	require.NoError(t, s.Ensure(t.Context()))
	return s
}

var spellings = []string{"weBull", "webull", "WEBULL"}

func TestADisconnectCountsHoweverTheBrokerIsWritten(t *testing.T) {
	s := database(t)
	at := Milli(time.Now())
	for _, account := range []string{"", "a"} {
		for i, said := range spellings {
			user := fmt.Sprintf("%d-%s", i, account)
			require.NoError(t, s.RecordRevocation(t.Context(), Scope{user, said, account}, at, at.Add(time.Hour)))
			for _, asked := range spellings {
				got, err := s.Revocations(t.Context(), user, asked, []string{"a"})
				require.NoError(t, err)
				require.Equal(t, at, got["a"].UTC(), "said of %s, asked about %s", said, asked)
			}
			got, err := s.Revocations(t.Context(), user, "weBull2", []string{"a"})
			require.NoError(t, err)
			require.Empty(t, got)
		}
	}
}

// Earlier releases know a disconnect by the broker type as written alone.
func TestDisconnectsOfEarlierReleasesAndForThem(t *testing.T) {
	s := database(t)
	at := Milli(time.Now())
	former := func(user string) string { return hashID("revocation", user, "weBull", "a") }
	_, err := s.revocations.InsertOne(t.Context(), revocation{ID: former("old"), At: at, PurgeAt: at.Add(time.Hour)}, options.InsertOne())
	require.NoError(t, err)
	got, err := s.Revocations(t.Context(), "old", "weBull", []string{"a"})
	require.NoError(t, err)
	require.Equal(t, at, got["a"].UTC())

	require.NoError(t, s.RecordRevocation(t.Context(), Scope{"new", "weBull", "a"}, at, at.Add(time.Hour)))
	n, err := s.revocations.CountDocuments(t.Context(), bson.D{{Key: "_id", Value: former("new")}})
	require.NoError(t, err)
	require.Equal(t, int64(1), n)
}

func TestAListingOfABrokerHoweverItIsWritten(t *testing.T) {
	s := database(t)
	stored := []string{"weBull", "WEBULL", "weBull2", "aweBull", "a.b", "axb", "A.B", "\u212araken", "kraken", "ÖHMI", "ohmi", "^a|b$", "(?i)x", "x"}
	for i, broker := range stored {
		require.NoError(t, s.Insert(t.Context(), &Grant{ID: fmt.Sprintf("g%02d", i), UserID: "u", BrokerType: broker, State: Active}))
	}
	for _, asked := range append([]string{"webull", "KRAKEN", "öhmi", "^A|B$", "(?I)X", "none"}, stored...) {
		var want, got []string
		for _, broker := range stored {
			if events.SameBroker(broker, asked) {
				want = append(want, broker)
			}
		}
		page, err := s.List(t.Context(), Listing{Broker: asked, Limit: 100})
		require.NoError(t, err)
		for _, g := range page {
			got = append(got, g.BrokerType)
		}
		require.Equal(t, want, got, "%q", asked)
	}
	tallies, err := s.Tallies(t.Context())
	require.NoError(t, err)
	require.Len(t, tallies, 11)
	require.Contains(t, tallies, Tally{Active, "webull", 2})
	require.Contains(t, tallies, Tally{Active, "kraken", 2})
}

// Documents and streams of earlier releases have these ids: with others a worker would not
// find them, and a disconnect would be forgotten.
func TestIDsStayAsTheyAre(t *testing.T) {
	require.Equal(t, []string{"d3vjnvvwh627pdiu3kupfyb2kn4mtqjk"}, Scope{User: "user", Account: "account"}.ids())
	require.Equal(t, "rbikbxqajbqzk2t5ydg4pulayzk43xp3", FormerGrantID("ü", "webull", strings.Repeat("x", 600)))
}
