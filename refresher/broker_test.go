package refresher_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
)

// spellings name one broker.
var spellings = []string{"weBull", "webull", "WEBULL"}

func TestLimitsAndBreakerAreOneHoweverTheBrokerIsWritten(t *testing.T) {
	for _, first := range spellings {
		for _, second := range spellings {
			t.Run(first+" "+second, func(t *testing.T) {
				c := newClock(t0)
				l := newLimits(wide(func(l *config.Limits) { l.BrokerConcurrency = 1 }), c)
				done := enter(t, l, first)
				require.Equal(t, "concurrency", later(t, l, second).Why)
				_, held := l.AtLimit(second)
				require.True(t, held)
				enter(t, l, "other")(nil)
				done(nil)

				l = newLimits(wide(func(l *config.Limits) { l.BrokerRate, l.BrokerBurst = 1, 1 }), c)
				enter(t, l, first)(nil)
				require.Equal(t, "rate", later(t, l, second).Why)

				l = newLimits(wide(func(l *config.Limits) { l.BreakerFailures = 2 }), c)
				enter(t, l, first)(&refresher.Failure{Class: refresher.Transient})
				enter(t, l, second)(&refresher.Failure{Class: refresher.Transient})
				require.Equal(t, "breaker", later(t, l, first).Why)
				require.Equal(t, "breaker", later(t, l, second).Why)
				require.Positive(t, l.SuspendedFor(second))
			})
		}
	}
}

// The slots go to the broker with the fewest refreshes at work: two ways to write
// one must not make it two.
func TestTheQueueHasOneLineHoweverTheBrokerIsWritten(t *testing.T) {
	c := newClock(t0)
	q := must(refresher.NewQueue(refresher.QueueOptions{Limits: newLimits(wide(), c), Slots: 2, Room: 10, Now: c.Now}))
	first, err := q.Enter(t.Context(), "weBull", in(0))
	require.NoError(t, err)
	second, err := q.Enter(t.Context(), "other", in(0))
	require.NoError(t, err)
	out := make(chan arrival, 10)
	arrive(t.Context(), q, out, "same", "WEBULL", in(0))
	arrive(t.Context(), q, out, "less urgent", "other", in(hour))
	second(nil)
	got := <-out
	require.Equal(t, "less urgent", got.name, "nobody of its broker is at work")
	got.done(nil)
	got = <-out
	require.Equal(t, "same", got.name)
	got.done(nil)
	first(nil)
}

func TestMarginsOfABrokerHoweverItIsWritten(t *testing.T) {
	for _, configured := range spellings {
		p := plainPolicy()
		p.Brokers = map[string]config.BrokerPolicy{configured: {AccessToken: &config.Margin{Share: 0.5, Max: day}}, "x": {}}
		for _, stored := range spellings {
			require.Equal(t, t0.Add(30*time.Minute), p.Next(newGrant(func(g *store.Grant) { g.BrokerType = stored })).At, "%s %s", configured, stored)
		}
	}
}

// What Mesh wrote is what Mesh gets; all else goes by the key.
func TestARefreshHoweverTheBrokerIsWritten(t *testing.T) {
	r := newRig(t)
	reg := prometheus.NewRegistry()
	w := r.Worker("a", func(d *refresher.Options) { d.SendAccess, d.Metrics = []string{"WEbULL"}, reg })
	needs := meshsim.Institution{NeedsAccessToken: true, AccessLifetime: hour}
	for i, broker := range spellings {
		g := r.Connect(w, meshsim.ConnectSpec{BrokerType: broker, Institution: &needs, Accounts: []meshsim.Account{{ID: fmt.Sprint(i)}}})
		require.NoError(t, w.HandleDue(t.Context(), due(g)))
		got := r.Get(w, g.ID)
		require.Equal(t, int64(2), got.Version, broker)
		require.Equal(t, broker, got.BrokerType)
		r.RequireSoundTokens(w, g.ID)
	}
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "latchkey_refreshes_total" {
			require.Len(t, f.Metric, 1)
			require.Equal(t, "webull", f.Metric[0].Label[0].GetValue())
			require.InDelta(t, 3, f.Metric[0].Counter.GetValue(), 0)
		}
	}
}

// A connect that writes the broker in another case replaces the grant while an
// answer of the tokens before lies in the recovery stream: the answer is old, and
// no fault.
func TestARescuedAnswerOfAGrantWhoseBrokerIsWrittenAnew(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.Connect(w, meshsim.ConnectSpec{BrokerType: "weBull", Accounts: []meshsim.Account{{ID: "one"}}})
	r.FailWrites(true)
	require.NoError(t, w.HandleDue(t.Context(), due(g)))
	r.FailWrites(false)
	require.Len(t, r.RecoveryEntries(), 1)
	require.NoError(t, w.Store.Delete(t.Context(), r.Get(w, g.ID)))
	r.Clock.Advance(time.Second)
	anew := r.Connect(w, meshsim.ConnectSpec{BrokerType: "WEBULL", Accounts: []meshsim.Account{{ID: "one"}}})
	require.Equal(t, g.ID, anew.ID)

	require.NoError(t, w.Recover(t.Context(), r.RecoveryEntries()[0]))
	require.Equal(t, anew.Version, r.Get(w, anew.ID).Version)
	r.RequireSoundTokens(w, anew.ID)
}

// An entry of an earlier release does not say how the broker was written.
func TestARescuedAnswerOfAnEarlierRelease(t *testing.T) {
	r := newRig(t)
	w := r.Worker("a")
	g := r.Connect(w, meshsim.ConnectSpec{BrokerType: "weBull", Accounts: []meshsim.Account{{ID: "one"}}})
	r.FailWrites(true)
	require.NoError(t, w.HandleDue(t.Context(), due(g)))
	r.FailWrites(false)
	var entry map[string]any
	require.NoError(t, json.Unmarshal(r.RecoveryEntries()[0], &entry))
	require.Equal(t, "weBull", entry["broker"])

	delete(entry, "broker")
	body, err := json.Marshal(entry)
	require.NoError(t, err)
	require.NoError(t, w.Recover(t.Context(), body))
	require.Equal(t, int64(2), r.Get(w, g.ID).Version)
	r.RequireSoundTokens(w, g.ID)
}
