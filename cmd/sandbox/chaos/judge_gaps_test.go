package chaos

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

// chainOf makes a chain whose token of 10 s at 0 is followed by one that was
// issued at 15 s, and a ledger of a minute.
func chainOf(delivered bool, again ...float64) (meshsim.Chain, meshsim.Ledger) {
	ledger := meshsim.Ledger{At: at(60), Requests: []meshsim.Request{{ID: 1, Chain: 1, Issued: true, Delivered: delivered, AnsweredAt: at(15)}}}
	for i, s := range again {
		ledger.Requests = append(ledger.Requests, meshsim.Request{ID: i + 2, Chain: 1, Issued: true, Delivered: true, AnsweredAt: at(s)})
	}
	return meshsim.Chain{ID: 1, Access: []meshsim.AccessToken{
		{IssuedAt: start, ExpiresAt: at(10)},
		{IssuedAt: at(15), IssuedIn: 1, ExpiresAt: at(60)},
	}}, ledger
}

func TestGaps(t *testing.T) {
	assert.Equal(t, []gap{{at(10), at(15)}}, gaps(chainOf(true)))
	assert.Equal(t, []gap{{at(10), at(60)}}, gaps(chainOf(false)), "nobody has a token whose answer was lost")
	assert.Equal(t, []gap{{at(10), at(20)}}, gaps(chainOf(false, 20)), "an answer to the same token again holds it")
}

func TestUnannouncedGaps(t *testing.T) {
	end, other := at(11), at(30) // by the clock of a worker
	event := func(kind string, ends *time.Time, published float64) heardEvent {
		return heardEvent{events.LifecycleEvent{Kind: kind, Data: events.Lifecycle{ExpiresAt: ends}}, at(published)}
	}
	for name, c := range map[string]struct {
		again  []float64
		heard  []heardEvent
		silent []episode
		want   int
	}{
		"no event":                  {again: []float64{40}, want: 1},
		"a token comes in time":     {again: []float64{15.5}},
		"announced ahead":           {again: []float64{40}, heard: []heardEvent{event(events.TokenExpiring, &end, 5)}},
		"expired":                   {again: []float64{40}, heard: []heardEvent{event(events.TokenExpired, &end, 12)}},
		"announced too late":        {again: []float64{40}, heard: []heardEvent{event(events.TokenExpiring, &end, 17)}, want: 1},
		"another token's":           {again: []float64{40}, heard: []heardEvent{event(events.TokenExpiring, &other, 5)}, want: 1},
		"of no end":                 {again: []float64{40}, heard: []heardEvent{event(events.TokenExpiring, nil, 5)}, want: 1},
		"refreshed says nothing":    {again: []float64{40}, heard: []heardEvent{event(events.TokenRefreshed, &end, 5)}, want: 1},
		"silent, then a token":      {again: []float64{40}, silent: []episode{{from: at(9), to: at(18), silent: true}}},
		"silent, then nothing":      {silent: []episode{{from: at(9), to: at(18), silent: true}}, want: 1},
		"silent, then announced":    {heard: []heardEvent{event(events.TokenExpiring, &end, 40)}, silent: []episode{{from: at(9), to: at(18), silent: true}}},
		"a scene that lets publish": {again: []float64{40}, silent: []episode{{from: at(9), to: at(18)}}, want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := &run{start: start, Options: Options{Out: &bytes.Buffer{}}}
			r.timeline.episodes = append([]episode{{from: start, to: at(1)}}, c.silent...)
			v := &verdict{timeline: &r.timeline, effects: make([]effects, len(r.timeline.episodes))}
			chain, ledger := chainOf(false, c.again...)
			r.judgeGaps(&store.Grant{ID: "g"}, chain, ledger, c.heard, v)
			n := 0
			for _, e := range v.effects {
				n += e.counts[unannounced]
			}
			assert.Equal(t, c.want, n, v.said)
		})
	}
}

func TestTokensThatWereOver(t *testing.T) {
	token := secret.New("access")
	for name, c := range map[string]struct {
		again  []float64 // answers that held the token once more
		killed bool
		sent   float64
		within bool
	}{
		"a life of 40 s":                    {sent: 40.01},
		"a life of 4 s":                     {again: []float64{36}, sent: 41.5, within: true},
		"a life of 4 s, over for long":      {again: []float64{36}, sent: 41.7},
		"a life of 15 s":                    {again: []float64{25}, sent: 40.4, within: true},
		"a life of 15 s, over for long":     {again: []float64{25}, sent: 40.6},
		"a short life, told after it ended": {again: []float64{45}, sent: 41},
		"killed":                            {again: []float64{36}, killed: true, sent: 41},
	} {
		t.Run(name, func(t *testing.T) {
			a := meshsim.AccessToken{Fingerprint: meshsim.FingerprintOf(token), IssuedAt: start, ExpiresAt: at(40)}
			if c.killed {
				a.KilledAt = at(38)
			}
			ledger := meshsim.Ledger{Chains: []meshsim.Chain{{ID: 1, Access: []meshsim.AccessToken{a}}}}
			for i, s := range c.again {
				ledger.Requests = append(ledger.Requests, meshsim.Request{ID: i + 1, Chain: 1, At: at(s), Issued: true, Delivered: true})
			}
			assert.Equal(t, c.within, withinTenth(badToken{sent: at(c.sent), token: token}, ledger))
		})
	}
	assert.False(t, withinTenth(badToken{token: secret.New("unknown")}, meshsim.Ledger{}))
}

func TestRequestsThatWaited(t *testing.T) {
	all := func(took ...time.Duration) (out []asked) {
		for _, d := range took {
			out = append(out, asked{took: d})
		}
		return out
	}
	for name, c := range map[string]struct {
		quiet, during []asked
		want          int
	}{
		"as before":                 {all(time.Millisecond), all(time.Millisecond), 0},
		"slower, not by as much":    {all(time.Millisecond), all(time.Second), 0},
		"waited":                    {all(time.Millisecond), all(time.Millisecond, 3*time.Second), 1},
		"on a machine that is slow": {all(300 * time.Millisecond), all(3 * time.Second), 0},
		"on one that stands still":  {all(time.Millisecond, time.Millisecond, 2*time.Second), all(3 * time.Second), 0},
		"longer than that":          {all(time.Millisecond, time.Millisecond, 2*time.Second), all(5 * time.Second), 1},
		"refused":                   {all(time.Millisecond), []asked{{err: assert.AnError}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := &run{start: start, Options: Options{Out: &bytes.Buffer{}}}
			assert.NoError(t, r.compare(c.quiet, c.during))
			assert.Len(t, r.waits, c.want)
		})
	}
}
