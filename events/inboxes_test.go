package events

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// everySubject are subjects of an installation, one of each kind.
func everySubject(s Subjects) []string {
	all := []string{
		s.Connected(), s.Disconnected(), s.TokenGet("a.b"), s.TokenKeys(), s.RefreshSchedule("g"), s.RefreshDue(), s.RefreshUrgent(),
		s.Recovery("g"), s.DeadLetter("tag", RefreshDueName), s.AuditPartition("chain").Chain("chain"), s.Canary(),
	}
	for _, kind := range LifecycleKinds {
		all = append(all, s.Lifecycle(kind, "alice"))
	}
	return all
}

func TestOnlyInboxesTakeAnswers(t *testing.T) {
	in, err := NewInboxes(Subjects{}, "_INBOX", "_INBOX_*", "inbox.portfolio", "inbox.team-*")
	require.NoError(t, err)
	for _, reply := range []string{
		"_INBOX.a", "_INBOX.a.b", "_INBOX_portfolio.a", "_INBOX_.a", "inbox.portfolio.a", "inbox.team-1.a", "_R_.a", "_R_.a.b",
		"_GR_.abcdef.ghijkl._INBOX.a", "_GR_.abcdef.ghijkl._R_.a.b",
	} {
		require.True(t, in.Contains(reply), reply)
	}
	for _, reply := range append(everySubject(Subjects{}),
		"", ".", "_INBOX", "_INBOX.", "_INBOX..a", "_INBOXa.b", "_inbox.a", "x_INBOX.a", "x._INBOX.a", "._INBOX.a", "_INBOX.*", "_INBOX.>", "_INBOX.a.>",
		"_INBOX.a b", "_INBOX.a\tb", "_INBOX.a\r\nPUB", "_INBOX_", "_INBOX_a", "inbox", "inbox.portfolio", "inbox.portfolio2.a", "inbox.team.a", "_R_", "_R_.", "_R_x.a",
		"_GR_.a._INBOX.a", "_GR_.a.b.token.stored.alice", "_GR_.a.b._GR_.a.b._INBOX.a", "_GR_.a.b.", "_GR_.a.b",
		"$JS.API.STREAM.DELETE.LATCHKEY_AUDIT", "$JS.ACK.s.c.1.1.1.1.1", "$SYS.REQ.SERVER.PING", "$SRV.PING", "$SRV.STATS.latchkey-tokens", "$GR.a._INBOX.a", "other",
	) {
		require.False(t, in.Contains(reply), reply)
	}
	none, err := NewInboxes(Subjects{})
	require.NoError(t, err)
	require.False(t, none.Contains("_INBOX.a"))
	require.True(t, none.Contains("_R_.a"))
}

func TestInboxPrefixesCoverNothingElse(t *testing.T) {
	for _, prefix := range []string{
		"", "*", ">", ".", "_INBOX.", "._INBOX", "_INBOX.*", "_INBOX.>", "_IN*BOX", "*.a", "a b", "$JS", "$*", "$SYS.a",
		"token", "tok*", "token.x", "integration", "refresh.due", "latchkey", "l*",
	} {
		_, err := NewInboxes(Subjects{}, prefix)
		require.ErrorIs(t, err, ErrInboxPrefix, "%q", prefix)
	}
	for _, prefix := range []string{"eu", "e*", "eu.inbox"} {
		_, err := NewInboxes(Subjects{Prefix: "eu"}, prefix)
		require.ErrorIs(t, err, ErrInboxPrefix, prefix)
	}
	_, err := NewInboxes(Subjects{Prefix: "eu"}, "europe", "token", "us.inbox")
	require.NoError(t, err)
	// Whatever prefix is accepted, it takes none of our subjects.
	for _, subjects := range []Subjects{{}, {Prefix: "eu"}, {Partitions: 4}} {
		for _, subject := range everySubject(subjects) {
			for n := range len(subject) + 1 {
				for _, prefix := range []string{subject[:n], subject[:n] + "*"} {
					if in, err := NewInboxes(subjects, prefix); err == nil {
						require.False(t, in.Contains(subject), "%s takes %s", prefix, subject)
					}
				}
			}
		}
	}
}

func TestFiltersThatCollectInboxes(t *testing.T) {
	in, err := NewInboxes(Subjects{}, "_INBOX", "_INBOX_*", "inbox.portfolio")
	require.NoError(t, err)
	for _, filter := range []string{">", "*.>", "*.*", "_INBOX.>", "_INBOX.a", "_INBOX.*", "_INBOX_b.>", "*.a.b", "inbox.>", "inbox.*.a", "inbox.portfolio.*", "_R_.>"} {
		require.True(t, in.Overlaps(filter), filter)
	}
	for _, filter := range append(everySubject(Subjects{}), "*", "_INBOX", "_INBOXx.>", "inbox.portfolio", "inbox.other.>", "orders.>", "inbox.*") {
		require.False(t, in.Overlaps(filter), filter)
	}
	for filter, subject := range map[string]string{"*": "a.b", "_INBOX.>": "_INBOX", "_INBOX.*": "_INBOX.a.b", "*.b.>": "a.b", "_INBOX.a": "_INBOX.b", "_INBOX": "_INBOX.a"} {
		require.False(t, FilterMatches(filter, subject), "%s %s", filter, subject)
	}
	// A filter that collects an inbox overlaps.
	for _, reply := range []string{"_INBOX.a", "_INBOX_b.c.d", "inbox.portfolio.a.b"} {
		parts := strings.Split(reply, ".")
		for i := range parts {
			wild := slices.Clone(parts)
			wild[i] = "*"
			for _, filter := range []string{reply, strings.Join(wild, "."), strings.Join(append(slices.Clone(parts[:i]), ">"), ".")} {
				require.True(t, FilterMatches(filter, reply), filter)
				require.True(t, in.Overlaps(filter), filter)
			}
		}
	}
}
