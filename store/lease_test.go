package store_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/store"
)

func request(owner string) store.LeaseRequest {
	return store.LeaseRequest{GrantID: "g", Version: 1, Owner: owner, Now: now, Until: now.Add(time.Minute)}
}

func TestAcquireAFreeLease(t *testing.T) {
	s := open(t)
	before := active("g")
	before.Epoch = 4
	insert(t, s, before)
	r := request("w1")
	r.DueAt = &before.Due.At
	g, takenOver, err := s.Acquire(t.Context(), r)
	require.NoError(t, err)
	require.False(t, takenOver)
	require.Equal(t, &store.Lease{Owner: "w1", Until: now.Add(time.Minute)}, g.Lease)
	require.EqualValues(t, 5, g.Epoch)
	require.EqualValues(t, 2, g.Rev)
	require.Equal(t, g, get(t, s, "g"), "what is returned is what is stored")

	require.ErrorIs(t, s.Save(t.Context(), before), store.ErrConflict, "who read before the lease can't write")
	require.NoError(t, s.Save(t.Context(), g), "the holder can")
}

func TestOneReportOfARefusedTokenCountsInAPause(t *testing.T) {
	s := open(t)
	g := active("g")
	insert(t, s, g)
	const pause = 10 * time.Minute
	report := func(at time.Time) error {
		r := request("w")
		r.Now, r.Until, r.Report, r.ReportsSince = at, at.Add(time.Second), &store.RefusedReport{Version: 1, At: at}, at.Add(-pause)
		g, _, err := s.Acquire(t.Context(), r)
		if err == nil {
			require.Equal(t, &store.RefusedReport{Version: 1, At: at}, g.RefusedReport)
			require.Equal(t, g, get(t, s, "g"), "what is returned is what is stored")
			g.Lease = nil
			require.NoError(t, s.Save(t.Context(), g)) // and stays with what is saved
		}
		return err
	}
	require.NoError(t, report(now))
	for _, early := range []time.Duration{0, time.Second, pause - time.Millisecond} {
		require.ErrorIs(t, report(now.Add(early)), store.ErrStale, early)
	}
	_, _, err := s.Acquire(t.Context(), request("another")) // for no report
	require.NoError(t, err)
	require.NoError(t, report(now.Add(pause)))
}

func TestAcquireAHeldLease(t *testing.T) {
	s := open(t)
	insert(t, s, active("g"))
	held, _, err := s.Acquire(t.Context(), request("w1"))
	require.NoError(t, err)
	for _, at := range []time.Time{now, now.Add(time.Minute - time.Millisecond)} {
		r := request("w2")
		r.Now, r.Until = at, at.Add(time.Minute)
		_, _, err = s.Acquire(t.Context(), r)
		var leased *store.LeasedError
		require.ErrorAs(t, err, &leased)
		require.Equal(t, now.Add(time.Minute), leased.Until)
		require.NotErrorIs(t, err, store.ErrStale)
	}
	require.Equal(t, held, get(t, s, "g"), "a refused request changes nothing")
}

func TestAcquireALeaseThatRanOut(t *testing.T) {
	s := open(t)
	insert(t, s, active("g"))
	dead, _, err := s.Acquire(t.Context(), request("w1"))
	require.NoError(t, err)
	r := request("w2")
	r.Now, r.Until = now.Add(time.Minute), now.Add(2*time.Minute)
	g, takenOver, err := s.Acquire(t.Context(), r)
	require.NoError(t, err)
	require.True(t, takenOver)
	require.Equal(t, "w2", g.Lease.Owner)
	require.EqualValues(t, dead.Epoch+1, g.Epoch)
	require.Equal(t, g, get(t, s, "g"))
	require.ErrorIs(t, s.Save(t.Context(), dead), store.ErrConflict, "the former holder is fenced off")
}

func TestAcquireAfterTheLeaseWasGivenBack(t *testing.T) {
	s := open(t)
	insert(t, s, active("g"))
	g, _, err := s.Acquire(t.Context(), request("w1"))
	require.NoError(t, err)
	g.Lease = nil
	require.NoError(t, s.Save(t.Context(), g))
	again, takenOver, err := s.Acquire(t.Context(), request("w2"))
	require.NoError(t, err)
	require.False(t, takenOver)
	require.EqualValues(t, 2, again.Epoch)
}

func TestAcquireForAnotherState(t *testing.T) {
	s := open(t)
	due := active("g").Due.At
	other := due.Add(time.Millisecond)
	for name, c := range map[string]struct {
		change  func(*store.Grant)
		request func(*store.LeaseRequest)
	}{
		"older version":       {func(g *store.Grant) { g.Version = 2 }, nil},
		"newer version":       {nil, func(r *store.LeaseRequest) { r.Version = 2 }},
		"other due time":      {nil, func(r *store.LeaseRequest) { r.DueAt = &other }},
		"no longer due":       {func(g *store.Grant) { g.Due = nil }, func(r *store.LeaseRequest) { r.DueAt = &due }},
		"expired":             {func(g *store.Grant) { g.State = store.Expired }, nil},
		"revoked":             {func(g *store.Grant) { g.State = store.Revoked }, nil},
		"stale and leased":    {func(g *store.Grant) { g.Version, g.Lease = 2, &store.Lease{Owner: "w", Until: now.Add(time.Hour)} }, nil},
		"expired, lease over": {func(g *store.Grant) { g.State, g.Lease = store.Expired, &store.Lease{Owner: "w", Until: now} }, nil},
	} {
		g := active(enginestest.Name(t))
		r := request("w1")
		r.GrantID = g.ID
		if c.change != nil {
			c.change(g)
		}
		if c.request != nil {
			c.request(&r)
		}
		insert(t, s, g)
		_, _, err := s.Acquire(t.Context(), r)
		require.ErrorIs(t, err, store.ErrStale, name)
		var leased *store.LeasedError
		require.NotErrorAs(t, err, &leased, name)
		require.Equal(t, g, get(t, s, g.ID), name)
	}
}

func TestAcquireAGrantThatWaitsForItsUser(t *testing.T) {
	s := open(t)
	g := active("g")
	g.State = store.MustAct
	insert(t, s, g)
	_, _, err := s.Acquire(t.Context(), request("w1"))
	require.NoError(t, err)
}

func TestAcquireWhatIsNotThere(t *testing.T) {
	_, _, err := open(t).Acquire(t.Context(), request("w1"))
	require.ErrorIs(t, err, store.ErrNotFound)
}

func TestOneOfManyAcquires(t *testing.T) {
	db := enginestest.MongoDB(t)
	o := options(t, db)
	const workers = 8
	stores := make([]*store.Store, workers)
	for i := range stores {
		stores[i] = connect(t, o)
	}
	g := active("g")
	insert(t, stores[0], g)
	for round := range 5 {
		start := make(chan struct{})
		errs := make([]error, workers)
		won := make([]*store.Grant, workers)
		var all sync.WaitGroup
		for i, s := range stores {
			all.Go(func() {
				<-start
				r := request(fmt.Sprintf("w%d", i))
				r.DueAt = &g.Due.At
				won[i], _, errs[i] = s.Acquire(t.Context(), r)
			})
		}
		close(start)
		all.Wait()
		var winner *store.Grant
		for i, err := range errs {
			if err == nil {
				require.Nil(t, winner, "two have the lease")
				winner = won[i]
				continue
			}
			var leased *store.LeasedError
			require.ErrorAs(t, err, &leased)
		}
		require.NotNil(t, winner, "nobody has the lease")
		require.EqualValues(t, round+1, winner.Epoch)
		require.Equal(t, winner, get(t, stores[0], "g"))
		winner.Lease = nil
		require.NoError(t, stores[0].Save(t.Context(), winner))
	}
}

func TestLeaseLive(t *testing.T) {
	var none *store.Lease
	require.False(t, none.Valid(now))
	l := &store.Lease{Owner: "w", Until: now}
	require.True(t, l.Valid(now.Add(-1)))
	require.False(t, l.Valid(now))
}
