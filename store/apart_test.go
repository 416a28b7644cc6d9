package store

import (
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/events"
)

// TestUsersAreKeptApart: whatever two users are called, nothing of one is that
// of the other, and no permission for one covers the other.
func TestUsersAreKeptApart(t *testing.T) {
	t.Parallel()
	name := rapid.OneOf(
		rapid.StringMatching(`[a-bA-B%.*> é_2E-]{1,6}`),
		rapid.String(),
		rapid.SampledFrom([]string{"é", "e\u0301", "a", "а", "A", "a.b", "a%2Eb", "*", ">", "$ne", "__proto__", "💥", "ﬁ", "fi"}),
	)
	rapid.Check(t, func(t *rapid.T) {
		one, other := name.Draw(t, "one"), name.Draw(t, "other")
		broker, account := name.Draw(t, "broker"), name.Draw(t, "account")
		if one == other || events.CheckUserID(one) != nil || events.CheckUserID(other) != nil {
			return
		}
		require.NotEqual(t, GrantID(one, broker, account), GrantID(other, broker, account))
		require.NotEqual(t, DelayedGrantID(one, broker, account), DelayedGrantID(other, broker, account))
		for _, id := range (Scope{User: one, Broker: broker, Account: account}.ids()) {
			require.NotContains(t, Scope{User: other, Broker: broker, Account: account}.ids(), id)
		}
		// A part moved from one place to the next makes another user's id neither.
		if broker != "" {
			require.NotEqual(t, GrantID(one, broker+account), GrantID(one+broker, account))
		}
		require.NotEqual(t, GrantID(one, broker, account), DelayedGrantID(one, broker, account))

		for _, prefix := range []string{"", "eu"} {
			s := events.Subjects{Prefix: prefix}
			require.False(t, server.SubjectsCollide(s.TokenGet(one), s.TokenGet(other)), "%q %q", one, other)
			require.False(t, server.SubjectsCollide(s.Lifecycle(events.TokenStored, one), s.Lifecycle(events.TokenStored, other)))
			require.True(t, server.IsValidLiteralSubject(s.TokenGet(one)))
		}
	})
}
