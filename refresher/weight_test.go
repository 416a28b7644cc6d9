package refresher_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

const (
	mebibyte    = 1 << 20
	maxDocument = 16 * mebibyte
)

// weighs checks that what an answer made of a grant can be stored and told.
func weighs(t require.TestingT, g *store.Grant, tokens store.TokenSet) {
	sealed := len(tokens.RefreshToken.Reveal()) + len(tokens.TradeToken.Reveal())
	for _, a := range tokens.Accounts {
		sealed += len(a.AccountID) + len(a.AccessToken.Reveal()) + len(a.TokenID.Reveal()) + 24
	}
	g.Sealed = envelope.Blob{KeyID: strings.Repeat("k", 32), Data: make([]byte, sealed)}
	doc, err := bson.Marshal(g)
	require.NoError(t, err)
	require.Less(t, len(doc), maxDocument-mebibyte/2)
	for _, e := range g.Outbox.Events {
		require.Less(t, len(e.Data), mebibyte-8<<10)
		_, err := events.DecodeLifecycle(e.Data)
		require.NoError(t, err)
	}
}

// TestAnyAnswerFits: whatever answers bring, one after another, the grant can be
// stored, its events published, and the refresh token is the one that came last.
func TestAnyAnswerFits(t *testing.T) {
	sizes := []int{0, 40, 513, 60_000, mebibyte, 7 * mebibyte}
	rapid.Check(t, func(t *rapid.T) {
		c := newClock(sentAt)
		g := newGrant(withAccounts("one"))
		tokens := newTokens("one")
		for round := range rapid.IntRange(1, 2).Draw(t, "answers") {
			a := refresher.Answer{RefreshToken: text(fmt.Sprint("refresh-", round)), ExpiresIn: time.Hour}
			left := 8 * mebibyte
			repeat := func(s, label string) string {
				size := min(rapid.SampledFrom(sizes).Draw(t, label), left)
				left -= size
				return strings.Repeat(s, size)
			}
			if rapid.Bool().Draw(t, "large refresh token") {
				a.RefreshToken = text(repeat("<", "refresh token") + fmt.Sprint(round))
			}
			name, access, id := repeat("n", "name"), repeat("a", "access"), repeat("i", "id")
			if rapid.Bool().Draw(t, "one access token for all") {
				a.AccessToken, access = text(access), ""
			}
			each := len(name) + len(access) + len(id) + 40
			count := min(rapid.SampledFrom([]int{1, 1, 2, 2, 3, 300, 300, 20_000}).Draw(t, "accounts"), left/each)
			for n := range count {
				a.Accounts = append(a.Accounts, refresher.AnsweredAccount{ID: fmt.Sprintf("%s%d-%d", id, round, n), Name: name, AccessToken: text(access)})
			}
			var err error
			tokens, err = settler(c, 0).ApplyAnswer(g, tokens, a, false, int64(round+1), sentAt)
			require.NoError(t, err)
			require.Equal(t, a.RefreshToken.Reveal(), tokens.RefreshToken.Reveal())
			weighs(t, g, tokens)
		}
	})
}

// TestTwentyThousandAccountsAreKept: their tokens and names all are, and the event
// says how many more there are than it names.
func TestTwentyThousandAccountsAreKept(t *testing.T) {
	const many = 20_000
	var ids []string
	for n := range many {
		ids = append(ids, fmt.Sprintf("0198c2f4-6d3e-7a51-9c55-%012d", n))
	}
	g := newGrant(withAccounts())
	tokens, left, err := settler(newClock(sentAt), 0).AnsweredWithin(g, newTokens(), answer(ids...), 1, sentAt)
	require.NoError(t, err)
	require.Zero(t, left)
	require.Len(t, tokens.Accounts, many)
	require.Len(t, g.Accounts, many)
	weighs(t, g, tokens)
	told := announced(t, g)[0].Data
	require.NotZero(t, told.AccountsOmitted)
	require.Equal(t, many, len(told.Accounts)+told.AccountsOmitted)
}

// TestAsManyAccountsAsAnAnswerHolds: no number of tiny accounts makes a document
// that MongoDB refuses.
func TestAsManyAccountsAsAnAnswerHolds(t *testing.T) {
	a := refresher.Answer{RefreshToken: text("refresh-1")}
	for n := range 150_000 {
		a.Accounts = append(a.Accounts, refresher.AnsweredAccount{ID: fmt.Sprint(n), AccessToken: text("a")})
	}
	g := newGrant(withAccounts())
	tokens, err := settler(newClock(sentAt), 0).ApplyAnswer(g, newTokens(), a, false, 1, sentAt)
	require.NoError(t, err)
	require.Greater(t, len(tokens.Accounts), 20_000)
	weighs(t, g, tokens)
}

// TestALargeRefreshTokenTakesTheRoomOfAccessTokens, also of those for which the
// answer has others that do not fit.
func TestALargeRefreshTokenTakesTheRoomOfAccessTokens(t *testing.T) {
	s := settler(newClock(sentAt), 0)
	g := newGrant(withAccounts())
	first, access := refresher.Answer{RefreshToken: text("refresh-1")}, text(strings.Repeat("a", 530))
	for n := range 15_000 {
		first.Accounts = append(first.Accounts, refresher.AnsweredAccount{ID: fmt.Sprint(n), AccessToken: access})
	}
	tokens, err := s.ApplyAnswer(g, newTokens(), first, false, 1, sentAt)
	require.NoError(t, err)
	require.Len(t, tokens.Accounts, 15_000)
	large := refresher.Answer{RefreshToken: text(strings.Repeat("r", 7*mebibyte)), AccessToken: text(strings.Repeat("b", mebibyte))}
	tokens, err = s.ApplyAnswer(g, tokens, large, false, 2, sentAt)
	require.NoError(t, err)
	require.True(t, tokens.RefreshToken.Equal(large.RefreshToken))
	require.NotEmpty(t, tokens.Accounts)
	weighs(t, g, tokens)
}

// TestWhatAnAnswerBringsComesFirst: what it brings takes the room of access tokens
// that it does not bring, and accounts that of names.
func TestWhatAnAnswerBringsComesFirst(t *testing.T) {
	s := settler(newClock(sentAt), 0)
	large := func(id string, size int) refresher.Answer {
		return refresher.Answer{RefreshToken: text("refresh-" + id), Accounts: []refresher.AnsweredAccount{{ID: id, AccessToken: text(strings.Repeat("a", size))}}}
	}
	g := newGrant(withAccounts())
	tokens, left, err := s.AnsweredWithin(g, newTokens(), large("old", 5*mebibyte), 1, sentAt)
	require.NoError(t, err)
	require.Zero(t, left)
	tokens, left, err = s.AnsweredWithin(g, tokens, large("new", 6*mebibyte), 2, sentAt)
	require.NoError(t, err)
	require.Zero(t, left)
	require.Nil(t, tokens.Account("old"))
	require.NotNil(t, tokens.Account("new"))
	weighs(t, g, tokens)

	const many = 4000
	named := refresher.Answer{RefreshToken: text("refresh-named")}
	for n := range many {
		named.Accounts = append(named.Accounts, refresher.AnsweredAccount{ID: fmt.Sprintf("%0400d", n), Name: strings.Repeat("n", 512), AccessToken: text("a")})
	}
	g = newGrant(withAccounts())
	tokens, left, err = s.AnsweredWithin(g, newTokens(), named, 1, sentAt)
	require.NoError(t, err)
	require.Zero(t, left)
	require.Len(t, g.Accounts, many)
	require.NotEmpty(t, g.Accounts[0].Name)
	require.Empty(t, g.Accounts[many-1].Name)
	weighs(t, g, tokens)
}

func TestWhatIsLeftOutIsSaid(t *testing.T) {
	a := answer("one", "two", "three")
	for i := range a.Accounts {
		a.Accounts[i].AccessToken = text("")
	}
	a.AccessToken = text(strings.Repeat("a", 4*mebibyte)) // for each of them
	tokens, left, err := settler(newClock(sentAt), 0).AnsweredWithin(newGrant(withAccounts("one", "two", "three")), newTokens(), a, 1, sentAt)
	require.NoError(t, err)
	require.Equal(t, 1, left)
	require.Len(t, tokens.Accounts, 2)
}

func TestALongAccountIDIsNamedByItsHash(t *testing.T) {
	long := strings.Repeat("x", 513)
	g := newGrant(withAccounts())
	a := answer(long, long+"y")
	tokens, err := settler(newClock(sentAt), 0).ApplyAnswer(g, newTokens(), a, false, 1, sentAt)
	require.NoError(t, err)
	require.Len(t, tokens.Accounts, 2)
	require.Equal(t, events.BoundedID(long), g.Accounts[0].ID)
	require.Len(t, g.Accounts[0].ID, 7+64)
	require.Equal(t, a.Accounts[1].AccessToken.Reveal(), tokens.Account(events.BoundedID(long+"y")).AccessToken.Reveal())
}

// TestAnOutboxStaysSmall: while NATS takes nothing, a grant with many accounts
// still has its events, which name no more than there is room for.
func TestAnOutboxStaysSmall(t *testing.T) {
	var ids []string
	for n := range 8000 {
		ids = append(ids, fmt.Sprintf("account-%060d", n))
	}
	g, tokens := newGrant(withAccounts(ids...)), newTokens(ids...)
	for epoch := range int64(20) {
		var err error
		tokens, err = settler(newClock(sentAt), 0).ApplyAnswer(g, tokens, answer(ids...), false, epoch+1, sentAt)
		require.NoError(t, err)
	}
	require.Len(t, g.Outbox.Events, 20)
	weighs(t, g, tokens)
}

// heavyAnswers are answers at the limits of what is read of one, with what they bring.
func heavyAnswers() map[string]refresher.Answer {
	accounts := func(n int, name, access string) (out []refresher.AnsweredAccount) {
		for i := range n {
			out = append(out, refresher.AnsweredAccount{ID: fmt.Sprintf("account-%0300d", i), Name: name, AccessToken: text(fmt.Sprint(access, i))})
		}
		return out
	}
	return map[string]refresher.Answer{
		"a name of 1.2 MB":           {Accounts: accounts(1, strings.Repeat("n", 1_200_000), "a"), RefreshToken: text("r")},
		"accounts of 1 MB":           {Accounts: accounts(3000, "A name", "an access token "), RefreshToken: text("r")},
		"an access token of 5 MB":    {Accounts: accounts(1, "", strings.Repeat("a", 5_000_000)), RefreshToken: text("r")},
		"a refresh token of 7.5 MiB": {Accounts: accounts(1, "", "a"), RefreshToken: text(strings.Repeat("<", 15*mebibyte/2))},
	}
}

func heavyBody(t *testing.T, a refresher.Answer) []byte {
	t.Helper()
	type object = map[string]any
	var tokens []object
	for _, in := range a.Accounts {
		tokens = append(tokens, object{"account": object{"accountId": in.ID, "accountName": in.Name}, "accessToken": in.AccessToken.Reveal()})
	}
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	require.NoError(t, encoder.Encode(object{"status": "ok", "content": object{
		"status": "succeeded", "brokerAccountTokens": tokens, "refreshToken": a.RefreshToken.Reveal(), "expiresInSeconds": 3600,
	}}))
	require.Less(t, out.Len(), 8*mebibyte)
	return []byte(out.String())
}

// TestHeavyAnswersAreStoredAndTold, through the database or the recovery stream.
func TestHeavyAnswersAreStoredAndTold(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.DBTimeout = patience // for documents of many megabytes
	var next []byte
	mesh := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // a server that closes before it has read all resets the connection
		_, _ = w.Write(next)
	}))
	t.Cleanup(mesh.Close)
	r.MeshURL = mesh.URL
	w := r.Worker("a")
	documents := r.documents()
	for name, a := range heavyAnswers() {
		if enginestest.RaceDetector && (len(a.Accounts) > 1 || len(heavyBody(t, a)) > 2*mebibyte) {
			continue // make scale has them
		}
		for _, away := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, database away: %v", name, away), func(t *testing.T) {
				g := r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) { g.UserID = t.Name(); g.Accounts = nil })
				defer func() { // the embedded database reads all documents of a collection
					_, err := documents.DeleteOne(context.Background(), bson.M{"_id": g.ID})
					require.NoError(t, err)
				}()
				next = heavyBody(t, a)
				r.FailWrites(away)
				require.NoError(t, w.HandleDue(t.Context(), due(g)))
				if away {
					r.FailWrites(false)
					entries := r.Messages(r.Subjects.RecoveryStream(), r.Subjects.Recovery(g.ID))
					require.Len(t, entries, 1)
					require.NoError(t, w.Recover(t.Context(), entries[0].Data))
					require.NoError(t, w.Recover(t.Context(), entries[0].Data), "its acknowledgement may be lost")
					require.Empty(t, r.Messages(r.Subjects.RecoveryStream(), r.Subjects.RecoveryPart(g.ID)))
				}
				g = r.Get(w, g.ID)
				require.Equal(t, int64(2), g.Version)
				tokens, err := w.Tokens(t.Context(), g)
				require.NoError(t, err)
				require.True(t, a.RefreshToken.Equal(tokens.RefreshToken))
				for _, in := range a.Accounts {
					require.True(t, in.AccessToken.Equal(tokens.Account(in.ID).AccessToken))
				}
				r.Eventually(func() bool {
					told := r.Messages(r.Subjects.LifecycleStream(), r.Subjects.Lifecycle(events.TokenRefreshed, g.UserID))
					return len(told) == 1
				}, "not told")
			})
		}
	}
}

// TestAStoredOutboxIsDeliveredThoughTooLarge: one that an earlier version wrote,
// or that was written before max_payload was lowered, holds up nothing.
func TestAStoredOutboxIsDeliveredThoughTooLarge(t *testing.T) {
	r := newRig(t)
	r.DBTimeout = patience // for documents of many megabytes
	w := r.Worker("a")
	g := r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) {
		data := g.Lifecycle("")
		data.Accounts = append(data.Accounts, events.Account{AccountID: "long", AccountName: strings.Repeat("n", 1_200_000)})
		e := events.LifecycleEvent{ID: "too large", Kind: events.TokenRefreshed, Time: r.Clock.Now(), Data: data}
		encoded, err := e.Encode()
		require.NoError(t, err)
		g.Outbox = &store.Outbox{Since: r.Clock.Now(), Events: []store.OutboxEvent{{ID: e.ID, Subject: r.Subjects.Lifecycle(e.Kind, g.UserID), Data: encoded}}}
	})
	require.NoError(t, w.Dispatcher.Deliver(t.Context(), g))
	require.Len(t, r.LifecycleEvents(g.UserID), 1)
}
