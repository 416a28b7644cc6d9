package tokens

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
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
		"a refresh": {func(s *state) {
			s.stored[0] = s.stored[0].Clone()
			s.stored[0].Version++
			s.grants.invalidate("alice")
		}, true, true},
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
		"a break":                     {func(s *state) { s.grants.clear() }, true, false},
		"a long time":                 {func(s *state) { s.now = s.now.Add(time.Minute) }, true, false},
		"a long time, and unheard of": {func(s *state) { s.now, s.stored = s.now.Add(time.Minute), nil }, true, true},
		"the end of the token":        {func(s *state) { s.now = s.now.Add(24 * time.Hour) }, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := &state{now: time.Now(), stored: []*store.Grant{grantOf(t, e, "alice")}}
			s.Service = f.tokenService(e, func(context.Context, string) ([]*store.Grant, error) { return s.stored, nil })
			s.conn = f.js.Conn()
			s.opts.Now = func() time.Time { return s.now }
			a := &answer{Service: s.Service, ctx: t.Context(), in: events.TokenRequest{UserID: "alice"}, record: audit.Record{User: "alice"}}
			a.noteDecision()
			body, err := a.encode(func() (*reply, error) { return s.get(t.Context(), a.in, &a.record, nobody) })
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
