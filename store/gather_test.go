package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	driver "go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/store"
)

// many runs f for each number below n, all at once, and returns the errors.
func many(n int, f func(i int) error) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errs
}

// slowly has every command take a while, so that calls come while others are
// under way, and counts inserts.
func slowly(t *testing.T, db *enginestest.Database) (inserts *atomic.Int64) {
	t.Helper()
	inserts = new(atomic.Int64)
	db.Proxy().Delay(20 * time.Millisecond)
	db.Proxy().FailWrites(91, func(command, _ string) bool {
		if command == "insert" {
			inserts.Add(1)
		}
		return false
	})
	return inserts
}

func TestInsertsAtOnceAreOneCommandEachWithItsOwnOutcome(t *testing.T) {
	db := enginestest.MongoDB(t)
	s := connect(t, options(t, db))
	require.NoError(t, s.Ensure(t.Context()))
	insert(t, s, active("g0"), active("g7"))
	inserts := slowly(t, db)
	errs := many(250, func(i int) error { return s.Insert(t.Context(), active(fmt.Sprint("g", i%200))) })
	db.Proxy().Delay(0)
	taken := map[string]int{}
	for i, err := range errs {
		if err == nil {
			taken[fmt.Sprint("g", i%200)]++
			continue
		}
		require.ErrorIs(t, err, store.ErrConflict)
		require.ErrorContains(t, err, fmt.Sprint("g", i%200))
	}
	require.Len(t, taken, 198)
	for id, n := range taken {
		require.Equal(t, 1, n, id)
		get(t, s, id)
	}
	require.Less(t, inserts.Load(), int64(100))
}

func TestReadsAtOnceAreAnsweredEachWithItsOwn(t *testing.T) {
	db := enginestest.MongoDB(t)
	s := connect(t, options(t, db))
	require.NoError(t, s.Ensure(t.Context()))
	for i := range 20 {
		g := active(fmt.Sprint("g", i))
		g.UserID = fmt.Sprint("user-", i)
		insert(t, s, g)
	}
	require.NoError(t, s.RecordRevocation(t.Context(), store.Scope{User: "user-3"}, now, now))
	slowly(t, db)
	var mu sync.Mutex
	seen := map[*store.Grant]bool{}
	for _, err := range many(60, func(i int) error {
		found, err := s.ByUser(t.Context(), fmt.Sprint("user-", i%30))
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if len(found) != map[bool]int{true: 1, false: 0}[i%30 < 20] || len(found) == 1 && found[0].ID != fmt.Sprint("g", i%30) {
			return fmt.Errorf("%d: %v", i, ids(found))
		}
		for _, g := range found {
			if seen[g] {
				return errors.New("two callers have the same grant in hand")
			}
			seen[g] = true
		}
		return nil
	}) {
		require.NoError(t, err)
	}
	for _, err := range many(60, func(i int) error {
		at, err := s.Revocations(t.Context(), fmt.Sprint("user-", i%30), "coinbase", []string{"acc-1"})
		if err == nil && (len(at) > 0) != (i%30 == 3) {
			err = fmt.Errorf("%d: %v", i, at)
		}
		return err
	}) {
		require.NoError(t, err)
	}
}

// Whoever has written a grant reads the user's others and gets that one as it is, unless
// the database has another one: of a later revision, without the outbox that another worker
// has sent, or of a later connect, which begins to count revisions anew.
func TestAGrantInHandIsNotReadAgain(t *testing.T) {
	s := connect(t, options(t, enginestest.MongoDB(t)))
	require.NoError(t, s.Ensure(t.Context()))
	current, old, other, sent, gone, again := active("current"), active("old"), active("other"), active("sent"), active("again"), active("again")
	for _, g := range []*store.Grant{current, sent} {
		g.Outbox = &store.Outbox{Since: now, Events: []store.OutboxEvent{{ID: g.ID, Subject: "s", Data: []byte("{}")}}}
	}
	insert(t, s, current, old, other, sent, gone)
	require.NoError(t, s.ClearOutbox(t.Context(), sent, ""))
	require.NoError(t, s.Save(t.Context(), old.Clone()))
	require.NoError(t, s.Delete(t.Context(), gone))
	again.Sealed.Data = []byte("the tokens of a later connect")
	insert(t, s, again)
	require.Equal(t, gone.Rev, again.Rev)
	found, err := s.ByUserWith(t.Context(), current.UserID, current, old, sent, gone)
	require.NoError(t, err)
	byID := map[string]*store.Grant{}
	for _, g := range found {
		byID[g.ID] = g
	}
	require.Len(t, byID, 5)
	require.Same(t, current, byID["current"])
	require.Nil(t, byID["sent"].Outbox)
	require.Equal(t, old.Rev+1, byID["old"].Rev)
	require.Equal(t, "other", byID["other"].ID)
	require.Equal(t, again.Sealed, byID["again"].Sealed)
}

// However many accounts connects have that come at once, no command is larger
// than MongoDB takes.
func TestDisconnectsAreLookedForInBoundedCommands(t *testing.T) {
	o := options(t, enginestest.MongoDB(t))
	var largest atomic.Int64
	o.Monitor = &event.CommandMonitor{Started: func(_ context.Context, e *event.CommandStartedEvent) {
		if n := int64(len(e.Command)); n > largest.Load() {
			largest.Store(n)
		}
	}}
	s := connect(t, o)
	require.NoError(t, s.Ensure(t.Context()))
	accounts := make([]string, 6000)
	for i := range accounts {
		accounts[i] = fmt.Sprint("account-", i)
	}
	gone := []string{accounts[0], accounts[3500], accounts[5999]}
	for _, account := range gone {
		require.NoError(t, s.RecordRevocation(t.Context(), store.Scope{User: "user", Account: account}, now, now))
	}
	for _, err := range many(3, func(int) error {
		at, err := s.Revocations(t.Context(), "user", "weBull", accounts)
		if err == nil && len(at) != len(gone) {
			err = fmt.Errorf("%d are disconnected", len(at))
		}
		return err
	}) {
		require.NoError(t, err)
	}
	require.Less(t, largest.Load(), int64(512<<10))
}

func TestWhatIsGatheredFailsForAll(t *testing.T) {
	db := enginestest.MongoDB(t)
	o := options(t, db)
	o.Timeout = time.Second
	s := connect(t, o)
	require.NoError(t, s.Ensure(t.Context()))
	db.Proxy().FailWrites(13, func(string, string) bool { return true })
	for _, err := range many(10, func(i int) error { return s.Insert(t.Context(), active(fmt.Sprint("g", i))) }) {
		require.Error(t, err)
		require.NotErrorIs(t, err, store.ErrConflict)
	}
	db.Proxy().FailWrites(0, nil)
	db.Proxy().Cut()
	for _, err := range many(10, func(i int) error {
		_, err := s.ByUser(t.Context(), fmt.Sprint(i))
		_, also := s.Revocations(t.Context(), fmt.Sprint(i), "coinbase", nil)
		if err == nil || also == nil {
			return nil
		}
		return errors.Join(err, also)
	}) {
		require.Error(t, err)
	}
	db.Proxy().Restore()
	_, err := s.ByUser(t.Context(), "user")
	require.NoError(t, err, "the next one works again")
}

// One caller's end is nobody else's.
func TestWhoeverEndsEarlyLeavesTheOthers(t *testing.T) {
	db := enginestest.MongoDB(t)
	s := connect(t, options(t, db))
	require.NoError(t, s.Ensure(t.Context()))
	slowly(t, db)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for i, err := range many(20, func(i int) error {
		ctx := t.Context()
		if i%2 == 0 {
			ctx = ended
		}
		return s.Insert(ctx, active(fmt.Sprint("g", i)))
	}) {
		if i%2 == 0 {
			require.ErrorIs(t, err, context.Canceled)
		} else {
			require.NoError(t, err)
		}
	}
}

// The outboxes of grants that changed at once are cleared by few commands, and
// each under its own revision.
func TestOutboxesAreClearedTogether(t *testing.T) {
	db := enginestest.MongoDB(t)
	o := options(t, db)
	var updates atomic.Int64
	o.Monitor = &event.CommandMonitor{Started: func(_ context.Context, e *event.CommandStartedEvent) {
		if e.CommandName == "update" {
			updates.Add(1)
		}
	}}
	s := connect(t, o)
	require.NoError(t, s.Ensure(t.Context()))
	grants := make([]*store.Grant, 120)
	for i := range grants {
		grants[i] = active(fmt.Sprint("g", i))
		grants[i].Outbox = outbox(now)
	}
	insert(t, s, grants...)
	for _, g := range grants[:10] {
		require.NoError(t, s.Save(t.Context(), g.Clone())) // g is out of date
	}
	updates.Store(0)
	slowly(t, db)
	for _, err := range many(len(grants), func(i int) error { return s.ClearOutbox(t.Context(), grants[i], "stream") }) {
		require.NoError(t, err)
	}
	db.Proxy().Delay(0)
	require.Less(t, updates.Load(), int64(len(grants)/4))
	for i, g := range grants {
		require.Equal(t, i < 10, get(t, s, g.ID).Outbox != nil)
	}

	db.Proxy().FailWrites(13, func(string, string) bool { return true })
	require.ErrorContains(t, s.ClearOutbox(t.Context(), grants[0], ""), "clearing the outbox of grant g0")
}

// A document that does not decode is the fault of its user's grants, and of nobody
// whose grants are read at the same time.
func TestAnUnreadableGrantIsTheFaultOfItsUserAlone(t *testing.T) {
	db := enginestest.MongoDB(t)
	o := options(t, db)
	s := connect(t, o)
	require.NoError(t, s.Ensure(t.Context()))
	for i := range 10 {
		g := active(fmt.Sprint("g", i))
		g.UserID = fmt.Sprint("user-", i)
		insert(t, s, g)
	}
	client, err := mongo.Connect(driver.Client().ApplyURI(db.URI()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	res, err := client.Database(o.Database).Collection("grants").UpdateOne(t.Context(), bson.D{{Key: "_id", Value: "g3"}},
		bson.D{{Key: "$set", Value: bson.D{{Key: "accounts", Value: "nonsense"}}}})
	require.NoError(t, err)
	require.Equal(t, int64(1), res.ModifiedCount)
	slowly(t, db)
	for i, err := range many(60, func(i int) error {
		_, err := s.ByUser(t.Context(), fmt.Sprint("user-", i%10))
		return err
	}) {
		require.Equal(t, i%10 == 3, err != nil, "user %d: %v", i%10, err)
	}
}
