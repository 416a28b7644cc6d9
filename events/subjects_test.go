package events_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/events"
)

func TestUserIDs(t *testing.T) {
	for _, id := range []string{
		"a", "user-1", "user.1", "*", ">", "a.*.>", " ", "a b", "%41", "%", "$SYS", "_INBOX", "Ünïcödé", "用户", "👍", "é",
		strings.Repeat("x", events.MaxUserIDChars), "auth0|5f7c", "a@b.example", "../../etc", `{"$ne":null}`, "<script>",
	} {
		require.NoError(t, events.CheckUserID(id), id)
		token := events.EncodeUserID(id)
		requireOneToken(t, token)
		back, err := events.DecodeUserID(token)
		require.NoError(t, err)
		require.Equal(t, id, back)
	}
}

func TestHostileUserIDs(t *testing.T) {
	for name, id := range map[string]string{
		"empty":               "",
		"too long":            strings.Repeat("x", events.MaxUserIDChars+1),
		"a megabyte":          strings.Repeat("x", 1<<20),
		"NUL":                 "a\x00",
		"line feed":           "a\nb",
		"carriage return":     "a\r",
		"escape":              "\x1b[2J",
		"delete":              "\x7f",
		"C1 control":          "a\u0085",
		"right-to-left":       "a\u202eb",
		"isolate":             "a\u2066b",
		"zero width joiner":   "a\u200db",
		"byte order mark":     "\ufeffa",
		"soft hyphen":         "a\u00adb",
		"tag":                 "a\U000e0041",
		"line separator":      "a\u2028",
		"paragraph separator": "a\u2029",
		"not UTF-8":           "a\xff",
		"surrogate":           "\xed\xa0\x80",
		"overlong":            "\xc0\xaf",
	} {
		err := events.CheckUserID(id)
		require.ErrorIs(t, err, events.ErrUserID, name)
		require.Less(t, len(err.Error()), 100, "%s: the error grows with the id", name)
		_, err = events.DecodeUserID(events.EncodeUserID(id))
		require.ErrorIs(t, err, events.ErrUserID, name)
	}
}

func TestOnlyTheCanonicalFormDecodes(t *testing.T) {
	for _, token := range []string{
		"", "a.b", "*", ">", "a b", "é", "~", "+", // must be escaped
		"%41", "%61", "%30", "%2D", "%5F", // must not be
		"%2e", "%c3%a9", // upper case only
		"%", "%2", "a%", "a%2", "%%", "%2G", "%G2", "%.2", "% 2", "%-1", "%\xff2",
		"%00", "%FF", "%E2%80%AE", // what CheckUserID refuses
	} {
		_, err := events.DecodeUserID(token)
		require.ErrorIs(t, err, events.ErrUserID, token)
	}
}

func TestEncodeUserIDProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.OneOf(rapid.String(), rapid.StringMatching(`[%.*> a-cA-C0-3_-]{0,12}`), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
		a, b := ids.Draw(t, "a"), ids.Draw(t, "b")
		require.Equal(t, a == b, events.EncodeUserID(a) == events.EncodeUserID(b))

		token := events.EncodeUserID(a)
		back, err := events.DecodeUserID(token)
		if events.CheckUserID(a) != nil {
			require.Error(t, err)
			return
		}
		require.NoError(t, err)
		require.Equal(t, a, back)
		requireOneToken(t, token)
	})
}

func TestDecodeUserIDProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		token := rapid.OneOf(rapid.StringMatching(`([a-c0-2_-]|%[0-9A-Fa-f]{2}|%.?)*`), rapid.String()).Draw(t, "token")
		id, err := events.DecodeUserID(token)
		if err == nil {
			require.Equal(t, token, events.EncodeUserID(id), "two tokens for one user")
		}
	})
}

// requireOneToken holds a subject token against the server's own rules.
func requireOneToken(t require.TestingT, token string) {
	require.NotEmpty(t, token)
	require.NotContains(t, token, ".")
	require.True(t, server.IsValidPublishSubject("token.get."+token), token)
	require.True(t, utf8.ValidString(token))
	require.True(t, server.SubjectsCollide("token.get."+token, "token.get.*"), token)
}

func TestSubjects(t *testing.T) {
	plain, prefixed := events.Subjects{}, events.Subjects{Prefix: "acme"}
	for want, got := range map[string]string{
		"integration.connected":               plain.Connected(),
		"acme.integration.disconnected":       prefixed.Disconnected(),
		"token.expired.a%2Eb":                 plain.Lifecycle(events.TokenExpired, "a.b"),
		"token.stored.*":                      plain.LifecycleAll(events.TokenStored),
		"acme.token.get.%2A":                  prefixed.TokenGet("*"),
		"token.get.*":                         plain.TokenGetAll(),
		"token.keys":                          plain.TokenKeys(),
		"acme.token.keys":                     prefixed.TokenKeys(),
		"refresh.schedule.g1":                 plain.RefreshSchedule("g1"),
		"refresh.schedule.*":                  plain.RefreshScheduleAll(),
		"acme.refresh.due":                    prefixed.RefreshDue(),
		"latchkey.recovery.g1":                plain.Recovery("g1"),
		"latchkey.recovery.*":                 plain.RecoveryAll(),
		"latchkey.deadletter.tag.refresh.due": plain.DeadLetter("tag", events.RefreshDueName),
		"latchkey.deadletter.tag.>":           plain.DeadLettersOf("tag"),
		"acme.latchkey.deadletter.>":          prefixed.DeadLetterAll(),
		"LATCHKEY_INTEGRATION":                plain.IntegrationStream(),
		"ACME_LATCHKEY_REFRESH":               prefixed.RefreshStream(),
		"LATCHKEY_LIFECYCLE":                  plain.LifecycleStream(),
		"LATCHKEY_RECOVERY":                   plain.RecoveryStream(),
		"LATCHKEY_DEADLETTER":                 plain.DeadLetterStream(),
	} {
		require.Equal(t, want, got)
	}
}

func TestWildcardsMatchTheirSubjects(t *testing.T) {
	s := events.Subjects{Prefix: "acme"}
	for subject, wildcard := range map[string]string{
		s.Lifecycle(events.TokenRevoked, "a.b c"):                s.LifecycleAll(events.TokenRevoked),
		s.TokenGet("a.*.>"):                                      s.TokenGetAll(),
		s.RefreshSchedule("g1"):                                  s.RefreshScheduleAll(),
		s.Recovery("g1"):                                         s.RecoveryAll(),
		s.DeadLetter("tag", events.IntegrationDisconnected):      s.DeadLetterAll(),
		s.DeadLetter("tag", events.RefreshDueName):               s.DeadLetterAll(),
		events.Subjects{}.DeadLetter("tag", events.TokenGetName): events.Subjects{}.DeadLetterAll(),
	} {
		require.True(t, server.SubjectsCollide(subject, wildcard), "%s %s", subject, wildcard)
	}
}
