package handlers

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

// lettersOfAll parks dead letters of every kind: of alice and her grant, of bob and his,
// of both, and of nobody. It returns their names in the order of the stream.
func lettersOfAll(t *testing.T, f *fixture) (names []string) {
	t.Helper()
	f.dead.opts.Grants = func(_ context.Context, user string) ([]*store.Grant, error) {
		return []*store.Grant{{ID: "grant-of-" + user, UserID: user}}, nil
	}
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	f.dead.opts.Now = func() time.Time { return at }
	park := func(name, message, subject, body, reason string) {
		f.dead.opts.NewID = func() string { return name }
		d := &delivery{Subject: subject, Attempt: 1, FirstStoredAt: at}
		require.NoError(t, f.dead.Park(t.Context(), message, d, []byte(body), reason))
		names = append(names, name)
		at = at.Add(time.Hour)
	}
	for _, user := range []string{"alice", "bob"} {
		grant := "grant-of-" + user
		park(user+"-connect", events.IntegrationConnected, f.subjects.Connected(), fmt.Sprintf(`{"userId":%q}`, user), "payload: missing")
		park(user+"-disconnect", events.IntegrationDisconnected, f.subjects.Disconnected(), fmt.Sprintf(`{"userId":%q}`, user), "everything: missing")
		park(user+"-due", events.RefreshDueName, f.subjects.RefreshDue(), fmt.Sprintf(`{"grantId":%q,"version":1,"dueAt":"2026-03-01T00:00:00Z"}`, grant), "a fault")
		park(user+"-recovery", RecoveryName, f.subjects.Recovery(grant), `{}`, "a fault")
		id := user + "-answer"
		require.NoError(t, f.dead.ParkAnswer(t.Context(), &store.Grant{ID: grant, UserID: user}, id, []byte("rest")))
		names = append(names, id)
		at = at.Add(time.Hour)
	}
	park("both", events.IntegrationConnected, f.subjects.Connected(), `{"userId":"alice"},{"userId":"bob"}`, "payload: missing, and more")
	park("nobody", events.IntegrationConnected, f.subjects.Connected(), `junk`, "not JSON")
	return names
}

// matching returns the ids of the dead letters that a filter selects.
func (f *fixture) matching(filter LetterFilter) (ids []string) {
	f.t.Helper()
	for letter, err := range f.dead.Matching(f.t.Context(), filter, 1) {
		require.NoError(f.t, err)
		ids = append(ids, letter.ID)
	}
	return ids
}

// TestAFilterSelectsDeadLetters, by all that is known of them while they stay sealed.
func TestAFilterSelectsDeadLetters(t *testing.T) {
	f := newFixture(t)
	all := lettersOfAll(t, f)
	hour := func(n int) time.Time { return time.Date(2026, 3, 1, n, 0, 0, 0, time.UTC) }
	for name, c := range map[string]struct {
		filter LetterFilter
		want   []string
	}{
		"all":                    {LetterFilter{}, all},
		"of a user":              {LetterFilter{User: "alice"}, []string{"alice-connect", "alice-disconnect", "alice-due", "alice-recovery", "alice-answer", "both"}},
		"of a user, one kind":    {LetterFilter{User: "bob", Message: AnswerName}, []string{"bob-answer"}},
		"of nobody":              {LetterFilter{Unnamed: true}, []string{"nobody"}},
		"of a stranger":          {LetterFilter{User: "carol"}, nil},
		"by a word of reason":    {LetterFilter{Reason: "Missing", User: "alice"}, []string{"alice-connect", "alice-disconnect", "both"}},
		"by the whole reason":    {LetterFilter{ReasonIs: "payload: missing"}, []string{"alice-connect", "bob-connect"}},
		"by a part as the whole": {LetterFilter{ReasonIs: "payload"}, nil},
		"by message":             {LetterFilter{Message: events.IntegrationDisconnected}, []string{"alice-disconnect", "bob-disconnect"}},
		"since":                  {LetterFilter{Since: hour(10)}, []string{"both", "nobody"}},
		"before":                 {LetterFilter{Before: hour(1)}, []string{"alice-connect"}},
		"since and before":       {LetterFilter{Since: hour(1), Before: hour(3)}, []string{"alice-disconnect", "alice-due"}},
		"through":                {LetterFilter{Through: 2}, all[:2]},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, f.matching(c.filter)) })
	}

	tally, err := f.dead.Tally(t.Context(), LetterFilter{User: "alice"})
	require.NoError(t, err)
	require.Equal(t, 6, tally.Letters)
	require.EqualValues(t, 11, tally.Through)
	require.Len(t, tally.Reasons, 6)
	tally, err = f.dead.Tally(t.Context(), LetterFilter{})
	require.NoError(t, err)
	require.Equal(t, len(all), tally.Letters)
	require.Equal(t, ReasonTally{Reason: "a fault", Message: RecoveryName, Letters: 2, Oldest: hour(3), Newest: hour(8)}, tally.Reasons[0])
	last := tally.Reasons[len(tally.Reasons)-1]
	require.Equal(t, 1, last.Letters)

	// Looking that is broken off can go on where it was, whatever it had found.
	for _, user := range []string{"", "alice"} {
		ctx, cancel := context.WithCancel(t.Context())
		var first ParkedLetter
		var broken *BrokenOffError
		for l, err := range f.dead.Matching(ctx, LetterFilter{User: user}, 1) {
			if err != nil {
				require.ErrorIs(t, err, context.Canceled)
				require.ErrorAs(t, err, &broken)
				break
			}
			first = l
			cancel()
		}
		cancel()
		require.NotNil(t, broken)
		require.Equal(t, first.Sequence+1, broken.Next)
	}

	f.dead.opts.Grants = nil
	_, err = f.dead.Tally(t.Context(), LetterFilter{User: "alice"})
	require.ErrorIs(t, err, errNoGrants, "it would leave out what is about grants")
}

// TestWhatIsDoneToManyDeadLetters reaches each that was there, and no other, whatever
// becomes of the one before.
func TestWhatIsDoneToManyDeadLetters(t *testing.T) {
	f := newFixture(t)
	all := lettersOfAll(t, f)
	f.dead.opts.NewID = nats.NewInbox
	of := LetterFilter{Reason: "payload"}
	var seen []string
	broken := errors.New("broken")
	done, err := f.dead.Each(t.Context(), of, func(ctx context.Context, l ParkedLetter) error {
		seen = append(seen, l.ID)
		f.parkFor(`{"userId":"alice"}`) // as a replay that fails again
		if l.ID == "alice-connect" {
			return broken
		}
		return nil
	})
	require.ErrorIs(t, err, broken)
	require.Equal(t, 2, done)
	require.Equal(t, []string{"alice-connect", "bob-connect", "both"}, seen)

	tally, err := f.dead.Tally(t.Context(), LetterFilter{})
	require.NoError(t, err)
	seen = nil
	_, err = f.dead.Each(t.Context(), LetterFilter{Through: tally.Through}, func(_ context.Context, l ParkedLetter) error {
		seen = append(seen, l.ID)
		return fmt.Errorf("opening: %w", envelope.ErrKMS)
	})
	require.ErrorIs(t, err, envelope.ErrKMS)
	require.Len(t, seen, 1, "each would wait for KMS")

	done, err = f.dead.Each(t.Context(), LetterFilter{User: "alice"}, f.dead.Drop)
	require.NoError(t, err)
	require.Equal(t, 6+3, done)
	var others []string
	for _, id := range all {
		if id == "nobody" || id[0] == 'b' && id != "both" {
			others = append(others, id)
		}
	}
	require.Equal(t, others, f.matching(LetterFilter{}))
	done, err = f.dead.Each(t.Context(), LetterFilter{}, f.dead.Drop)
	require.NoError(t, err)
	require.Equal(t, len(others), done)
	done, err = f.dead.Each(t.Context(), LetterFilter{}, f.dead.Drop)
	require.NoError(t, err)
	require.Zero(t, done)
}
