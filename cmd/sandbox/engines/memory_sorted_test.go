package engines_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

// The lists that reconciliation works through are the same in memory as in FerretDB, page by page, and memory looks at
// hardly more documents than it returns.
func TestMemoryListsAsFerretDBDoes(t *testing.T) {
	memory, err := engines.StartMemory()
	require.NoError(t, err)
	t.Cleanup(memory.Stop)
	grants := variousGrants(rand.New(rand.NewPCG(1, 2)), 400)
	pages := map[string]map[string][]string{}
	for name, uri := range map[string]string{"memory": memory.URI(), "FerretDB": enginestest.MongoDB(t).URI()} {
		s, err := store.Open(t.Context(), store.Options{URI: secret.New(uri), Database: enginestest.Name(t), Timeout: time.Minute, AppName: "engines-test"})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close(context.WithoutCancel(t.Context()))) })
		require.NoError(t, s.Ensure(t.Context()))
		for i, g := range grants {
			g = g.Clone()
			require.NoError(t, s.Insert(t.Context(), g))
			if i%3 == 0 { // some move
				g.Due = &store.Due{At: at.Add(time.Duration(i) * time.Second), Stream: "moved", Action: store.Refresh}
				require.NoError(t, s.Save(t.Context(), g))
			}
		}
		pages[name] = map[string][]string{}
		for what, list := range listsOf(s) {
			before, listed := memory.Count().Examined, 0
			for from, going := (store.Place{}), true; going; {
				page, err := list(t.Context(), from)
				require.NoError(t, err, what)
				var ids []string
				for _, g := range page.Grants {
					ids = append(ids, g.ID)
				}
				pages[name][what] = append(pages[name][what], fmt.Sprint(ids, page.More))
				listed += len(ids)
				from, going = page.Next, page.More
			}
			require.Less(t, memory.Count().Examined-before, 2*listed+20, what)
		}
		for what, others := range map[string]func() ([]string, error){
			"streams": func() ([]string, error) { return s.OtherStreams(t.Context(), []string{"stream 1", "moved"}) },
			"keys":    func() ([]string, error) { return s.OtherChainKeys(t.Context(), "key 0") },
		} {
			before := memory.Count().Examined
			found, err := others()
			require.NoError(t, err)
			pages[name][what] = found
			require.Less(t, memory.Count().Examined-before, 5, what)
		}
	}
	require.Equal(t, pages["FerretDB"], pages["memory"])
	for what, list := range pages["memory"] {
		require.Greater(t, len(list), 1, what)
	}
}

var at = time.Date(2031, 5, 6, 7, 8, 9, 250e6, time.UTC)

// variousGrants returns grants of which each list has some.
func variousGrants(random *rand.Rand, n int) []*store.Grant {
	maybe := func() *time.Time {
		if random.IntN(2) == 0 {
			return nil
		}
		then := at.Add(time.Duration(random.IntN(60)-30) * time.Minute) // many at the same time
		return &then
	}
	grants := make([]*store.Grant, n)
	for i := range grants {
		user := fmt.Sprint("user ", i)
		g := &store.Grant{
			ID: store.GrantID(user, "b"), UserID: user, BrokerType: "b", State: []store.State{store.Active, store.Active, store.Expired}[random.IntN(3)],
			ConnectedAt: at, Version: 1, Sealed: envelope.Blob{KeyID: "k", Data: []byte{1}}, PurgeAt: maybe(), AccountsDue: maybe(),
			Access: &store.Lifetime{Since: at.Add(-time.Hour), ExpiresAt: maybe()},
		}
		if due := maybe(); due != nil {
			g.Due = &store.Due{At: *due, Action: store.Refresh, Stream: []string{"", "stream 1", "stream 2"}[random.IntN(3)]}
		}
		if since := maybe(); since != nil {
			g.Outbox = &store.Outbox{Since: *since}
		}
		if random.IntN(3) == 0 {
			g.Warned = "access_token"
		}
		if key := random.IntN(4); key > 0 {
			g.Chain = &store.Chain{Key: fmt.Sprint("key ", key-1)}
		}
		grants[i] = g
	}
	return grants
}

func listsOf(s *store.Store) map[string]func(ctx context.Context, after store.Place) (store.Page, error) {
	const limit = 7
	timed := func(list func(context.Context, time.Time, store.Place, int) (store.Page, error)) func(context.Context, store.Place) (store.Page, error) {
		return func(ctx context.Context, after store.Place) (store.Page, error) { return list(ctx, at, after, limit) }
	}
	lists := map[string]func(context.Context, store.Place) (store.Page, error){
		"overdue": timed(s.Overdue), "unsent": timed(s.Unsent), "purgeable": timed(s.Purgeable), "ending": timed(s.Ending),
		"accounts due": timed(s.AccountsDue), "due after": timed(s.DueAfter),
		"nothing due": func(ctx context.Context, after store.Place) (store.Page, error) {
			return s.WithNothingDue(ctx, after, limit)
		},
	}
	for _, stream := range []string{"", "stream 2", "moved"} {
		lists["scheduled in "+stream] = func(ctx context.Context, after store.Place) (store.Page, error) {
			return s.ScheduledIn(ctx, stream, at.Add(10*time.Minute), after, 0, limit)
		}
		lists["scheduled in, but the first "+stream] = func(ctx context.Context, after store.Place) (store.Page, error) {
			return s.ScheduledIn(ctx, stream, at.Add(10*time.Minute), after, 2, limit)
		}
	}
	for _, key := range []string{"", "key 2"} {
		lists["chained by "+key] = func(ctx context.Context, after store.Place) (store.Page, error) {
			return s.ChainedBy(ctx, key, after.ID, limit)
		}
	}
	return lists
}
