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

const accountID = "a"

func institution(dialects ...string) meshsim.Institution {
	return meshsim.Institution{AccessLifetime: time.Minute, Dialects: dialects}
}

// chainOf makes a chain whose token of 10 s at 0 is followed by one that was
// issued at 15 s, and a ledger of a minute.
func chainOf(delivered bool, again ...float64) (meshsim.Chain, answers) {
	ledger := answers{meshsim.Ledger{At: at(60), Requests: []meshsim.Request{{ID: 1, Chain: 1, Issued: true, Rotated: true, Delivered: delivered, AnsweredAt: at(15)}}}}
	if delivered {
		ledger.Requests[0].HTTPStatus = 200
	}
	for i, s := range again {
		ledger.Requests = append(ledger.Requests, meshsim.Request{ID: i + 2, Chain: 1, Issued: true, Resent: true, Delivered: true, HTTPStatus: 200, AnsweredAt: at(s)})
	}
	return meshsim.Chain{ID: 1, Accounts: []meshsim.Account{{ID: accountID}}, Institution: institution(), Access: []meshsim.AccessToken{
		{AccountID: accountID, IssuedAt: start, ExpiresAt: at(10)},
		{AccountID: accountID, IssuedAt: at(15), IssuedIn: 1, ExpiresAt: at(60)},
	}}, ledger
}

func TestGaps(t *testing.T) {
	of := func(chain meshsim.Chain, ledger answers) []gap {
		return gaps(ledger.lives([]meshsim.Chain{chain}, accountID), ledger.At)
	}
	assert.Equal(t, []gap{{at(10), at(15)}}, of(chainOf(true)))
	assert.Equal(t, []gap{{at(10), at(60)}}, of(chainOf(false)), "nobody has a token whose answer was lost")
	assert.Equal(t, []gap{{at(10), at(20)}}, of(chainOf(false, 20)), "an answer to the same token again holds it")

	chain, ledger := chainOf(true)
	chain.Institution = institution("noLifetimes")
	assert.Empty(t, of(chain, ledger), "who was never told an end knows of none")

	chain, ledger = chainOf(true)
	chain.Accounts, chain.Access[1].AccountID = append(chain.Accounts, meshsim.Account{ID: "b"}), "b"
	assert.Equal(t, []gap{{at(10), at(60)}}, of(chain, ledger), "the answer covers the other account")

	chain, ledger = chainOf(true)
	chain.Accounts = append(chain.Accounts, meshsim.Account{ID: "b"})
	ledger.Requests[0].Outcome = "succeeded, in noAccount, cutBody"
	assert.Equal(t, []gap{{at(10), at(60)}}, of(chain, ledger), "nobody can tell whose the token is")

	chain, ledger = chainOf(true)
	chain.Access[1].ExpiresAt, ledger.Requests[0].Outcome = at(40), "succeeded, in mistyped"
	assert.Equal(t, []gap{{at(10), at(15)}}, of(chain, ledger), "the end at 40 s was not told")
}

// chainsOf are those of the user of grant 0, who has one account.
func chainsOf(dialects ...string) (meshsim.Chain, answers) {
	chain, ledger := chainOf(true)
	chain.Accounts[0].ID, chain.Institution = account(0), institution(dialects...)
	for i := range chain.Access {
		chain.Access[i].AccountID = account(0)
	}
	return chain, ledger
}

func TestWhatBecameOfAGrant(t *testing.T) {
	const id = "g"
	event := func(kind string, version int64, reason events.Reason) publishedEvent {
		about := events.Lifecycle{GrantID: id, Version: version, Reason: reason, Accounts: []events.Account{{AccountID: account(0)}}}
		return publishedEvent{events.LifecycleEvent{Kind: kind, Time: at(20), Data: about}, at(20)}
	}
	stored, refreshed := event(events.TokenStored, 1, ""), event(events.TokenRefreshed, 2, "")
	expired := event(events.TokenExpired, 2, events.ReasonRejected)
	for name, c := range map[string]struct {
		dialects []string
		outcome  string
		alone    bool // the answer brought a refresh token alone
		left     bool
		state    store.State
		version  int64
		heard    []publishedEvent
		want     map[figure]int
	}{
		"as it should be":                           {heard: []publishedEvent{stored, refreshed}},
		"a version that was not told":               {heard: []publishedEvent{stored}, want: map[figure]int{missing: 1}},
		"a refresh token alone":                     {alone: true, heard: []publishedEvent{stored}},
		"called refreshed by a refresh token alone": {alone: true, heard: []publishedEvent{stored, refreshed}, want: map[figure]int{contradicting: 1}},
		"one version too many is silent":            {alone: true, version: 3, heard: []publishedEvent{stored}, want: map[figure]int{missing: 1}},
		"called refreshed twice":                    {version: 3, heard: []publishedEvent{stored, refreshed, event(events.TokenRefreshed, 3, "")}, want: map[figure]int{contradicting: 1}},
		"expired though alive":                      {state: store.Expired, heard: []publishedEvent{stored, refreshed, expired}, want: map[figure]int{lost: 1}},
		"said to be expired though alive":           {heard: []publishedEvent{stored, refreshed, expired}, want: map[figure]int{contradicting: 1}},
		"an account's own end":                      {heard: []publishedEvent{stored, refreshed, event(events.TokenExpired, 2, events.ReasonNotCovered)}},
		"left and expired":                          {left: true, state: store.Expired, heard: []publishedEvent{stored, refreshed, expired}},
		"left and goes on":                          {left: true, heard: []publishedEvent{stored, refreshed}, want: map[figure]int{lost: 1}},
		"left and not told":                         {left: true, state: store.Expired, heard: []publishedEvent{stored, refreshed}, want: map[figure]int{missing: 1}},
		"left, and Mesh may change its mind":        {left: true, dialects: []string{"refusedPermissionDenied"}, heard: []publishedEvent{stored, refreshed}},
	} {
		t.Run(name, func(t *testing.T) {
			chain, ledger := chainsOf(c.dialects...)
			ledger.Requests[0].Outcome = c.outcome
			if c.alone {
				chain.Access = chain.Access[:1]
				ledger.Requests[0].Issued = false
			}
			if c.left {
				chain.DiedAt, chain.DeadBecause = at(18), meshsim.DeadByFault
			}
			ledger.Chains = []meshsim.Chain{chain}
			state, version := c.state, c.version
			if state == "" {
				state = store.Active
			}
			if version == 0 {
				version = 2
			}
			g := &store.Grant{ID: id, State: state, Version: version, Accounts: []store.Account{{ID: account(0)}}}
			r := &run{start: start, Options: Options{Out: &bytes.Buffer{}}, listener: &listener{byGrant: map[string][]publishedEvent{id: c.heard}}}
			r.timeline.episodes = []episode{{from: start, silent: true}} // gaps are another test's
			v := &verdict{timeline: &r.timeline, effects: make([]effects, 1)}
			r.judgeUser(0, []*store.Grant{g}, ledger, v)
			want := effects{}
			for f, n := range c.want {
				want.counts[f] = n
			}
			assert.Equal(t, want.counts, v.effects[0].counts, v.explanations)
		})
	}
}

// Accounts that a refresh gave refresh tokens of their own have grants of their own.
func TestAUserHasAGrantForEachChain(t *testing.T) {
	parent, ledger := chainOf(true)
	own := meshsim.Chain{
		ID: 2, SplitFrom: 1, Accounts: []meshsim.Account{{ID: "b"}}, Institution: institution("refreshTokenEach"),
		Access: []meshsim.AccessToken{{AccountID: "b", IssuedAt: at(15), IssuedIn: 1, ExpiresAt: at(60)}},
	}
	parent.Institution = own.Institution
	ledger.Chains = []meshsim.Chain{parent, own}
	all := []meshsim.Account{{ID: accountID}, {ID: "b"}}
	assert.Len(t, ledger.family(all), 2)
	assert.Equal(t, []life{{at(15), at(60), true}}, ledger.lives(ledger.family(all), "b"))

	ledger.Requests[0].Outcome = "succeeded, in accountNull, cutBody"
	assert.Len(t, ledger.family(all), 1, "nobody can tell whose refresh token it is")
	ledger.Requests[0].Outcome, ledger.Requests[0].Delivered, ledger.Requests[0].HTTPStatus = "", false, 0
	assert.Len(t, ledger.family(all), 1, "nobody knows of it")
	ledger.Requests = append(ledger.Requests, meshsim.Request{ID: 2, Chain: 1, Issued: true, Resent: true, Delivered: true, HTTPStatus: 200, AnsweredAt: at(18)})
	assert.Len(t, ledger.family(all), 2, "the same answer came again")
}

func TestUnannouncedGaps(t *testing.T) {
	end, other := at(11), at(30) // by the clock of a worker
	event := func(kind string, ends *time.Time, published float64) publishedEvent {
		about := events.Lifecycle{ExpiresAt: ends, Accounts: []events.Account{{AccountID: accountID}}}
		return publishedEvent{events.LifecycleEvent{Kind: kind, Data: about}, at(published)}
	}
	another := event(events.TokenExpiring, &end, 5)
	another.Data.Accounts = []events.Account{{AccountID: "b"}}
	for name, c := range map[string]struct {
		again  []float64
		heard  []publishedEvent
		silent []episode
		want   int
	}{
		"no event":                  {again: []float64{40}, want: 1},
		"a token comes in time":     {again: []float64{15.5}},
		"announced ahead":           {again: []float64{40}, heard: []publishedEvent{event(events.TokenExpiring, &end, 5)}},
		"expired":                   {again: []float64{40}, heard: []publishedEvent{event(events.TokenExpired, &end, 12)}},
		"announced too late":        {again: []float64{40}, heard: []publishedEvent{event(events.TokenExpiring, &end, 20)}, want: 1},
		"another token's":           {again: []float64{40}, heard: []publishedEvent{event(events.TokenExpiring, &other, 5)}, want: 1},
		"another account's":         {again: []float64{40}, heard: []publishedEvent{another}, want: 1},
		"of no end":                 {again: []float64{40}, heard: []publishedEvent{event(events.TokenExpiring, nil, 5)}, want: 1},
		"refreshed says nothing":    {again: []float64{40}, heard: []publishedEvent{event(events.TokenRefreshed, &end, 5)}, want: 1},
		"silent, then a token":      {again: []float64{40}, silent: []episode{{from: at(9), to: at(18), silent: true}}},
		"silent, then nothing":      {silent: []episode{{from: at(9), to: at(18), silent: true}}, want: 1},
		"silent, then announced":    {heard: []publishedEvent{event(events.TokenExpiring, &end, 40)}, silent: []episode{{from: at(9), to: at(18), silent: true}}},
		"a scene that lets publish": {again: []float64{40}, silent: []episode{{from: at(9), to: at(18)}}, want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := &run{start: start, Options: Options{Out: &bytes.Buffer{}}}
			r.timeline.episodes = append([]episode{{from: start, to: at(1)}}, c.silent...)
			v := &verdict{timeline: &r.timeline, effects: make([]effects, len(r.timeline.episodes))}
			chain, ledger := chainOf(false, c.again...)
			r.judgeGaps(accountID, []meshsim.Chain{chain}, c.heard, ledger, v)
			n := 0
			for _, e := range v.effects {
				n += e.counts[unannounced]
			}
			assert.Equal(t, c.want, n, v.explanations)
		})
	}
}

func TestTokensThatWereNotValid(t *testing.T) {
	token := secret.New("access")
	for name, c := range map[string]struct {
		again    []float64 // answers that held the token once more
		dialects []string
		outcome  string // of the last answer
		killed   string
		newer    float64 // when an answer brought its successor
		sent     float64
		reported bool
		excused  bool
	}{
		"a life of 40 s":                    {sent: 40.01},
		"a life of 4 s":                     {again: []float64{36}, sent: 41.5, excused: true},
		"a life of 4 s, over for long":      {again: []float64{36}, sent: 41.7},
		"a life of 15 s":                    {again: []float64{25}, sent: 40.4, excused: true},
		"a life of 15 s, over for long":     {again: []float64{25}, sent: 40.6},
		"a short life, told after it ended": {again: []float64{45}, sent: 41},
		"of no known life":                  {dialects: []string{"noLifetimes"}, sent: 50, excused: true},
		"of no known life, reported":        {dialects: []string{"noLifetimes"}, sent: 50, reported: true},
		"of a life that was not told again": {again: []float64{30}, outcome: "succeeded, in utf16, hugeLifetimes", sent: 50, excused: true},
		"killed":                            {killed: "for no reason", newer: 38, sent: 48},
		"its user has left":                 {killed: meshsim.DeadByFault, sent: 39, excused: true},
		"its user has left, and it is over": {killed: meshsim.DeadByFault, sent: 41},
		"replaced a moment ago":             {killed: "replaced", newer: 38, sent: 39, excused: true},
		"replaced, and the answer was lost": {killed: "replaced", sent: 50, excused: true},
		"replaced long ago":                 {killed: "replaced", newer: 38, sent: 50},
	} {
		t.Run(name, func(t *testing.T) {
			a := meshsim.AccessToken{Fingerprint: meshsim.FingerprintOf(token), IssuedAt: start, IssuedIn: 1, ExpiresAt: at(40)}
			requests := []meshsim.Request{{ID: 1, Chain: 1, At: start, AnsweredAt: start, Issued: true, Rotated: true, Delivered: true, HTTPStatus: 200}}
			for _, s := range c.again {
				requests = append(requests, meshsim.Request{ID: len(requests) + 1, Chain: 1, At: at(s), AnsweredAt: at(s), Issued: true, Resent: true, Delivered: true, HTTPStatus: 200})
			}
			requests[len(requests)-1].Outcome = c.outcome
			if c.killed != "" {
				a.KilledAt, a.KilledWhy = at(38), c.killed
			}
			chain := meshsim.Chain{ID: 1, Accounts: []meshsim.Account{{ID: "a"}}, Institution: institution(c.dialects...), Access: []meshsim.AccessToken{a}}
			if c.newer > 0 {
				requests = append(requests, meshsim.Request{ID: len(requests) + 1, Chain: 1, At: at(c.newer), AnsweredAt: at(c.newer), Issued: true, Rotated: true, Delivered: true, HTTPStatus: 200})
				chain.Access = append(chain.Access, meshsim.AccessToken{IssuedAt: at(c.newer), IssuedIn: len(requests), ExpiresAt: at(90)})
			}
			ledger := answers{meshsim.Ledger{Chains: []meshsim.Chain{chain}, Requests: requests}}
			assert.Equal(t, c.excused, isExcused(badToken{sent: at(c.sent), known: at(c.sent - 6), token: token, reported: c.reported}, ledger))
		})
	}
	assert.False(t, isExcused(badToken{token: secret.New("unknown")}, answers{}))
}

func TestRequestsThatWaited(t *testing.T) {
	all := func(took ...time.Duration) (out []timedRequest) {
		for _, d := range took {
			out = append(out, timedRequest{took: d})
		}
		return out
	}
	for name, c := range map[string]struct {
		quiet, during []timedRequest
		want          int
	}{
		"as before":                 {all(time.Millisecond), all(time.Millisecond), 0},
		"slower, not by as much":    {all(time.Millisecond), all(time.Second), 0},
		"waited":                    {all(time.Millisecond), all(time.Millisecond, 3*time.Second), 1},
		"on a machine that is slow": {all(300 * time.Millisecond), all(3 * time.Second), 0},
		"on one that stands still":  {all(time.Millisecond, time.Millisecond, 2*time.Second), all(3 * time.Second), 0},
		"longer than that":          {all(time.Millisecond, time.Millisecond, 2*time.Second), all(5 * time.Second), 1},
		"refused":                   {all(time.Millisecond), []timedRequest{{err: assert.AnError}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := &run{start: start, Options: Options{Out: &bytes.Buffer{}}}
			assert.NoError(t, r.compare(c.quiet, c.during))
			assert.Len(t, r.waits, c.want)
		})
	}
}
