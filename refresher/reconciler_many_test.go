package refresher_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/store"
)

// What is too much for one pass goes on soon, and workers who do it at the same
// time do each other no harm.
func TestManySchedulesAreMadeAgainByAllWorkers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.Worker("a"), r.Worker("b")
	var ids []string
	for n := range 101 {
		g := r.Connect(a, meshsim.ConnectSpec{}, func(g *store.Grant) {
			stream := []string{"", "one of before", "another"}[n%3]
			g.Due = &store.Due{At: r.Clock.Now().Add(hour), Action: store.Refresh, Stream: stream}
		})
		ids = append(ids, g.ID)
	}
	interval := a.Reconciler.Settings().Interval
	a.Reconciler.Settings().Batch, b.Reconciler.Settings().Batch = 2, 2
	require.NoError(t, a.Reconciler.Pass(t.Context()))
	require.Less(t, a.Reconciler.Pause(), interval/2, "there is more to do")
	for _, w := range []*worker{a, b} {
		w.Reconciler.Settings().Batch = 20
	}
	var both sync.WaitGroup
	for _, w := range []*worker{a, b} {
		both.Go(func() {
			for passes := 0; passes < 3; {
				switch err := w.Reconciler.Pass(t.Context()); {
				case err == nil:
					passes++
				case !mongo.IsTimeout(err): // the embedded database may be slow
					t.Error(err)
					return
				}
			}
		})
	}
	both.Wait()
	require.GreaterOrEqual(t, a.Reconciler.Pause(), interval/2)
	for _, id := range ids {
		require.NotNil(t, r.schedule(id))
		require.Equal(t, a.Dispatcher.Stream(id), r.Get(a, id).Due.Stream)
	}
}
