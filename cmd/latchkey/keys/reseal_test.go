package keys_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey/latchkey/cmd/latchkey/keys"
	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

// resealing is a run that tests still change.
type resealing struct{ keys.ResealOptions }

func (r *resealing) Run(ctx context.Context) (keys.ResealReport, error) {
	reseal, err := keys.NewReseal(r.ResealOptions)
	if err != nil {
		return keys.ResealReport{}, err
	}
	return reseal.Run(ctx)
}

func (f *fixture) reseal(clock func() time.Time) *resealing {
	return &resealing{keys.ResealOptions{
		Store: f.db, Envelope: f.envelope(now), Now: clock, ClockSkew: 10 * time.Second, Patience: time.Hour,
		Limit: unlimited, Progress: &steps{},
	}}
}

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func TestResealLeavesGrantsInOthersHandsAlone(t *testing.T) {
	f := newFixture(t)
	e := f.envelope(now.Add(-time.Hour))
	byState := map[string]*store.Grant{}
	for _, id := range []string{"free", "leased", "lease just over", "lease over", "outbox", "expired"} {
		byState[id] = f.grant(e, id)
	}
	change := func(id string, do func(*store.Grant)) {
		g := byState[id]
		do(g)
		require.NoError(t, f.db.Save(t.Context(), g))
	}
	change("leased", func(g *store.Grant) { g.Lease = &store.Lease{Owner: "o", Until: now.Add(time.Second)} })
	change("lease just over", func(g *store.Grant) { g.Lease = &store.Lease{Owner: "o", Until: now.Add(-9 * time.Second)} })
	change("lease over", func(g *store.Grant) { g.Lease = &store.Lease{Owner: "o", Until: now.Add(-11 * time.Second)} })
	change("outbox", func(g *store.Grant) { g.Outbox = &store.Outbox{Since: now} })
	change("expired", func(g *store.Grant) { g.State = store.Expired })

	reseal := f.reseal(at(now))
	reseal.Patience = 0
	report, err := reseal.Run(t.Context())
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"leased", "lease just over", "outbox"}, report.Busy)
	require.Equal(t, 3, report.Resealed)
	for id, before := range byState {
		g := f.requireToken(id)
		if id == "free" || id == "lease over" || id == "expired" {
			require.NotEqual(t, before.Sealed.KeyID, g.Sealed.KeyID)
			require.Equal(t, before.Rev+1, g.Rev)
			before.Sealed, before.Rev = g.Sealed, g.Rev
		}
		require.Equal(t, before, g, "nothing else changes")
	}
}

// Whatever happens between reading a grant and writing it, the write is given up.
func TestResealGivesUpAChangedGrant(t *testing.T) {
	for what, meddle := range map[string]func(t *testing.T, db *store.Store, g *store.Grant){
		"leased": func(t *testing.T, db *store.Store, g *store.Grant) {
			_, _, err := db.Acquire(t.Context(), store.LeaseRequest{GrantID: g.ID, Version: 1, Owner: "o", Now: now, Until: now.Add(time.Minute)})
			require.NoError(t, err)
		},
		"changed": func(t *testing.T, db *store.Store, g *store.Grant) { require.NoError(t, db.Save(t.Context(), g)) },
		"gone":    func(t *testing.T, db *store.Store, g *store.Grant) { require.NoError(t, db.Delete(t.Context(), g)) },
	} {
		t.Run(what, func(t *testing.T) {
			f := newFixture(t)
			g := f.grant(f.envelope(now.Add(-time.Hour)), "g")
			sealed := g.Sealed
			calls := 0
			reseal := f.reseal(func() time.Time {
				if calls++; calls == 4 { // after the page was read: the clock is looked at for the lease
					meddle(t, f.db, g)
				}
				if what == "leased" && calls > 4 {
					return now.Add(2 * time.Minute)
				}
				return now
			})
			reseal.Pause = time.Millisecond
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			reseal.Progress = cancelling{cancel}
			report, err := reseal.Run(ctx)
			require.GreaterOrEqual(t, calls, 4)
			if what == "gone" {
				require.NoError(t, err)
				require.Zero(t, report.Resealed)
				return
			}
			require.Equal(t, 1, report.Resealed, "in the next pass")
			require.NotEqual(t, sealed.KeyID, f.requireToken("g").Sealed.KeyID)
		})
	}
}

// cancelling ends the walk after its first step.
type cancelling struct{ cancel func() }

func (cancelling) Total(int) {}
func (c cancelling) Step()   { c.cancel() }

func TestResealIsTakenUpAgain(t *testing.T) {
	f := newFixture(t)
	e := f.envelope(now.Add(-time.Hour))
	for _, id := range []string{"a", "b", "c"} {
		f.grant(e, id)
	}
	first := f.reseal(at(now))
	ctx, cancel := context.WithCancel(t.Context())
	first.Progress = cancelling{cancel}
	report, err := first.Run(ctx)
	require.Error(t, err)
	require.Equal(t, 1, report.Resealed)

	f.sim.Faults().Always(kmssim.Disconnect)
	_, err = f.reseal(at(now.Add(time.Minute))).Run(t.Context())
	require.ErrorIs(t, err, envelope.ErrKMS)
	f.sim.Faults().Clear()

	second := f.reseal(at(now.Add(time.Minute)))
	report, err = second.Run(t.Context())
	require.NoError(t, err)
	require.True(t, report.Continued)
	require.True(t, now.Equal(report.Before))
	require.Equal(t, 2, report.Resealed)
	require.Equal(t, &steps{2, 2}, second.Progress)
	retired, err := f.db.Retirement(t.Context())
	require.NoError(t, err)
	require.Equal(t, store.Retirement{Before: now, Done: true}, retired)

	// The next one begins anew, by whatever clock.
	report, err = f.reseal(at(now.Add(-time.Minute))).Run(t.Context())
	require.NoError(t, err)
	require.False(t, report.Continued)
	require.True(t, report.Before.After(now))
	require.Equal(t, 3, report.Resealed)

	require.NoError(t, f.db.Retire(t.Context(), store.Retirement{Before: now}))
	restarted := f.reseal(at(now.Add(time.Hour)))
	restarted.Restart = true
	report, err = restarted.Run(t.Context())
	require.NoError(t, err)
	require.True(t, report.Before.Equal(now.Add(time.Hour)))
}

func TestResealTellsWhatDoesNotOpen(t *testing.T) {
	f := newFixture(t)
	e := f.envelope(now.Add(-time.Hour))
	broken, orphan := f.grant(e, "broken"), f.grant(f.envelope(now.Add(-time.Hour)), "orphan")
	f.grant(e, "sound")
	changed := append([]byte{}, broken.Sealed.Data...)
	changed[len(changed)-1] ^= 1
	_, err := f.raw.Collection("grants").UpdateOne(t.Context(), bson.D{{Key: "_id", Value: "broken"}}, bson.D{{Key: "$set", Value: bson.D{{Key: "sealed.data", Value: changed}}}})
	require.NoError(t, err)
	require.NoError(t, f.db.DeleteKey(t.Context(), orphan.Sealed.KeyID))
	census, err := keys.TakeCensus(t.Context(), f.db)
	require.NoError(t, err)
	require.Equal(t, map[string]int{orphan.Sealed.KeyID: 1}, census.Missing)
	require.Len(t, census.Keys, 1)
	require.Equal(t, 2, census.Keys[0].Sets)

	report, err := f.reseal(at(now)).Run(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, report.Resealed)
	require.Len(t, report.Unreadable, 2)
	require.Equal(t, []string{"broken", "orphan"}, []string{report.Unreadable[0].ID, report.Unreadable[1].ID})
	for _, fault := range report.Unreadable {
		require.NotContains(t, fault.Error, "token of")
	}
	f.requireToken("sound")
}

// Workers that have not heard of it yet may seal under an old key once more.
func TestResealWaitsUntilAllWorkersHaveHeard(t *testing.T) {
	f := newFixture(t)
	e := f.envelope(now.Add(-time.Hour))
	f.grant(e, "a")
	clock := now
	reseal := f.reseal(func() time.Time { return clock })
	reseal.RolloutDelay = time.Minute
	reseal.Progress = lateWorker{func() {
		if clock.Equal(now) {
			clock = now.Add(time.Minute)
			f.grant(e, "late")
		}
	}}
	report, err := reseal.Run(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, report.Resealed)
	require.NotEmpty(t, f.requireToken("late").Sealed.KeyID)
	old, err := f.db.TokenSets(t.Context())
	require.NoError(t, err)
	require.Len(t, old, 1)
}

type lateWorker struct{ step func() }

func (lateWorker) Total(int) {}
func (l lateWorker) Step()   { l.step() }
