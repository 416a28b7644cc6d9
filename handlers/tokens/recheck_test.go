package tokens

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/audit"
)

// What was decided is looked at again before it leaves.
func TestAnAnswerThatWaitedIsLookedAtAgain(t *testing.T) {
	f := newFixture(t)
	e := f.envelope()
	type state struct {
		*Service
		now    time.Time
		stored []*store.Grant
	}
	for name, c := range map[string]struct {
		meanwhile func(*state)
		again     bool // it has to be looked at
		refused   bool
	}{
		"nothing":                    {func(*state) {}, false, false},
		"an event of no consequence": {func(s *state) { s.grants.invalidate("alice") }, true, false},
		"a disconnect":               {func(s *state) { s.stored = nil; s.grants.invalidate("alice") }, true, true},
		"the end of the grant": {func(s *state) {
			s.stored[0] = s.stored[0].Clone()
			s.stored[0].State = store.Expired
			s.grants.invalidate("alice")
		}, true, true},
		"an account that left": {func(s *state) {
			s.stored[0] = s.stored[0].Clone()
			s.stored[0].Accounts = nil
			s.grants.invalidate("alice")
		}, true, true},
		"a break": {func(s *state) { s.grants.clear() }, true, false},
		"other tokens, as after a refresh or another connect": {func(s *state) {
			s.stored = []*store.Grant{grantOf(t, e, "alice")}
			s.grants.invalidate("alice")
		}, true, true},
		"a change that has arrived": {func(s *state) {
			s.stored = nil
			s.grants.received <- &nats.Msg{Subject: f.subjects.Changed("alice")}
		}, true, true},
		"a long time":                 {func(s *state) { s.now = s.now.Add(time.Minute) }, true, false},
		"a long time, and unheard of": {func(s *state) { s.now, s.stored = s.now.Add(time.Minute), nil }, true, true},
		"the end of the token":        {func(s *state) { s.now = s.now.Add(24 * time.Hour) }, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := &state{now: time.Now(), stored: []*store.Grant{grantOf(t, e, "alice")}}
			s.Service = f.tokenService(e, func(ctx context.Context, _ string) ([]*store.Grant, error) { return s.stored, ctx.Err() })
			s.conn = f.js.Conn()
			s.opts.Now = func() time.Time { return s.now }
			s.grants.age, s.grants.now = time.Minute, s.opts.Now
			ctx, cancel := context.WithCancel(t.Context())
			a := &answer{Service: s.Service, ctx: ctx, in: events.TokenRequest{UserID: "alice"}, record: audit.Record{User: "alice"}}
			who := requester{waitFor: nobody.waitFor, noteReading: func(r *reading) { a.from = r }}
			body, err := a.encode(func() (*reply, error) { return s.get(ctx, a.in, &a.record, who) })
			cancel() // waiting took all of the request's time
			require.NoError(t, err)
			require.NotEmpty(t, body)
			c.meanwhile(s)
			require.Equal(t, !c.again, a.upToDate())
			err = a.recheck()
			if !c.refused {
				require.NoError(t, err)
				return
			}
			var refusal *refusal
			require.ErrorAs(t, err, &refusal)
			require.Equal(t, events.CodeBusy, refusal.Code)
		})
	}
}

// An answer that waits for the audit log is checked again if nobody would have heard.
func TestAReadingHoldsAsLongAsChangesAreHeard(t *testing.T) {
	s := newShelf(t, 1, time.Hour)
	read := func(user string) *reading {
		t.Helper()
		r, err := s.byUser(t.Context(), user)
		require.NoError(t, err)
		return r
	}
	for why, ends := range map[string]func(){
		"a change":                   func() { s.invalidate("a") },
		"a change that has arrived":  func() { s.received <- &nats.Msg{Subject: events.Subjects{}.Changed("a")} },
		"a change, and another read": func() { s.invalidate("a"); s.get("a") },
		"a break":                    s.clear,
		"another user in its place":  func() { s.get("b") },
		"its age":                    func() { s.now = s.now.Add(time.Hour) },
	} {
		s.now = time.Now()
		s.clear()
		r := read("a")
		s.now = s.now.Add(time.Hour - 1)
		require.Same(t, r, read("a"))
		require.True(t, s.holds("a", r))
		s.now = r.at
		ends()
		require.False(t, s.holds("a", r), why)
	}

	s.deafUntil = s.now.Add(time.Hour)
	s.meanwhile = func() { s.now = s.now.Add(time.Minute) } // a slow database is not read twice
	r := read("unheard")
	require.True(t, s.holds("unheard", r))
	s.now = s.now.Add(brief)
	require.False(t, s.holds("unheard", r))
}

// refreshing is a refresher that takes until ended to refresh a grant in vain.
type refreshing struct {
	Refresher
	begun, ended chan struct{}
}

func (r refreshing) RefreshNow(context.Context, *store.Grant) (*store.Grant, error) {
	r.begun <- struct{}{}
	<-r.ended
	return nil, &refresher.LaterError{After: time.Minute}
}

// An answer is as old as what was read for it, however long it waited for something else.
func TestNoTokenIsGivenOfAGrantThatWasErasedDuringTheRefreshOfAnother(t *testing.T) {
	f := newFixture(t)
	e := f.envelope()
	kept, other := grantOf(t, e, "alice"), grantOf(t, e, "alice")
	other.ID, other.Accounts, other.Access = "other", nil, nil // it has no token yet
	var stored atomic.Pointer[[]*store.Grant]
	stored.Store(&[]*store.Grant{kept, other})
	s := f.tokenService(e, func(context.Context, string) ([]*store.Grant, error) { return *stored.Load(), nil })
	s.opts.Config.Timeout = 10 * patience // a tenth of which it waits
	r := refreshing{s.opts.Refresher, make(chan struct{}), make(chan struct{})}
	s.opts.Refresher = r
	nc := f.js.Conn()
	require.NoError(t, s.Start(nc))
	answers := make(chan *nats.Msg, 1)
	inbox := nc.NewInbox()
	_, err := nc.ChanSubscribe(inbox, answers)
	require.NoError(t, err)
	require.NoError(t, nc.PublishRequest(f.subjects.TokenGet("alice"), inbox, []byte(`{"userId":"alice"}`)))
	enginestest.Receive(t, r.begun)
	stored.Store(&[]*store.Grant{other})
	require.NoError(t, nc.Publish(f.subjects.Changed("alice"), nil))
	require.NoError(t, nc.Flush())
	close(r.ended)
	msg := enginestest.Receive(t, answers)
	require.Equal(t, events.CodeBusy, msg.Header.Get(micro.ErrorHeader), string(msg.Data))
	require.NoError(t, s.Stop())
}
