package tokens

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// shelf is a cache before a store that counts how often it is read.
type shelf struct {
	*grantCache
	t     *testing.T
	reads int
	now   time.Time
	// meanwhile, if set, happens during the next read.
	meanwhile func()
	err       error
	gone      bool // all users
}

func newShelf(t *testing.T, size int, age time.Duration) *shelf {
	s := &shelf{t: t, now: time.Now()}
	s.grantCache = newGrantCache(size, age, func() time.Time { return s.now }, func(_ context.Context, user string) ([]*store.Grant, error) {
		s.reads++
		if s.meanwhile != nil {
			s.meanwhile()
		}
		if s.err != nil || user == "unknown" || s.gone {
			return nil, s.err
		}
		return []*store.Grant{{ID: user}}, nil
	})
	return s
}

// get asks for a user and tells whether that took a read.
func (s *shelf) get(user string) (read bool) {
	s.t.Helper()
	before := s.reads
	r, err := s.byUser(s.t.Context(), user)
	require.NoError(s.t, err)
	if user != "unknown" {
		require.Equal(s.t, user, r.grants[0].ID)
	}
	return s.reads > before
}

func TestGrantsAreReadOnceUntilTheyChange(t *testing.T) {
	s := newShelf(t, 2, time.Second)
	require.True(t, s.get("a"))
	require.False(t, s.get("a"))
	s.invalidate("a")
	require.True(t, s.get("a"))
	require.False(t, s.get("a"))
	s.clear()
	require.True(t, s.get("a"))
	require.True(t, s.get("b"))
	require.True(t, s.get("c")) // there is room for two
	require.True(t, s.get("a"))
	require.False(t, s.get("c"))
}

func TestAnUnheardChangeIsSeenAfterTheAge(t *testing.T) {
	s := newShelf(t, 2, time.Second)
	s.meanwhile = func() { s.now = s.now.Add(time.Second / 2) } // the age counts from before the read
	require.True(t, s.get("a"))
	s.meanwhile = nil
	s.now = s.now.Add(time.Second/2 - 1)
	require.False(t, s.get("a"))
	s.err = errTest
	s.now = s.now.Add(1)
	_, err := s.byUser(t.Context(), "a")
	require.ErrorIs(t, err, s.err)
	s.err = nil
	require.True(t, s.get("a"))
}

func TestAUserWhoIsGoneIsNotKept(t *testing.T) {
	s := newShelf(t, 2, time.Second)
	require.True(t, s.get("a"))
	s.now, s.gone = s.now.Add(time.Second), true
	r, err := s.byUser(t.Context(), "a")
	require.NoError(t, err)
	require.Empty(t, r.grants)
	_, ok := s.users.Peek("a")
	require.False(t, ok)
}

func TestWhatChangedDuringTheReadIsNotKept(t *testing.T) {
	for name, meanwhile := range map[string]func(*shelf){
		"this user": func(s *shelf) { s.invalidate("a") },
		"a break":   func(s *shelf) { s.clear() },
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t, 2, time.Hour)
			s.meanwhile = func() { meanwhile(s) }
			require.True(t, s.get("a"))
			s.meanwhile = nil
			require.True(t, s.get("a"))
			require.False(t, s.get("a"))
		})
	}
}

func TestTheUseOfAVersionIsNotedInWhatIsKept(t *testing.T) {
	s := newShelf(t, 2, time.Hour)
	kept := func() *store.Grant {
		r, err := s.byUser(t.Context(), "a")
		require.NoError(t, err)
		return r.grants[0]
	}
	g := kept()
	g.UserID, g.Version = "a", 3
	s.markUsed(&store.Grant{ID: "a", UserID: "a", Version: 2}) // another version
	s.markUsed(&store.Grant{ID: "b", UserID: "b", Version: 3}) // nothing is kept of b
	require.Same(t, g, kept())
	s.markUsed(g)
	require.Equal(t, int64(3), kept().UsedIn)
	require.Zero(t, g.UsedIn, "what is kept is shared")
	require.Equal(t, 1, s.reads)
}

func TestNothingIsKeptOfFailuresAndUnknownUsers(t *testing.T) {
	s := newShelf(t, 2, time.Hour)
	require.True(t, s.get("unknown"))
	require.True(t, s.get("unknown"), "a user connects at any time")
	s.err = errTest
	_, err := s.byUser(t.Context(), "a")
	require.ErrorIs(t, err, s.err)
	s.err = nil
	require.True(t, s.get("a"))
}

func TestMoreChangesThanFitForgetEverything(t *testing.T) {
	s := newShelf(t, 10, time.Hour)
	s.get("a")
	for range maxReceived {
		s.received <- &nats.Msg{Subject: events.Subjects{}.Changed("b")}
	}
	require.True(t, s.get("a"))
	require.Empty(t, s.received)
}

func TestWithoutAgeOrSizeNothingIsKept(t *testing.T) {
	for _, s := range []*shelf{newShelf(t, 0, time.Hour), newShelf(t, 1, 0)} {
		s.invalidate("a")
		s.clear()
		s.markUsed(&store.Grant{ID: "a", UserID: "a"})
		s.watchChanges(nil, events.Subjects{})()
		require.True(t, s.get("a"))
		require.True(t, s.get("a"))
	}
}
