package handlers

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

// TestReplayedMessagesKeepTheirTime: decoded after a replay, a message says
// the same as before, and has a time.
func TestReplayedMessagesKeepTheirTime(t *testing.T) {
	arrived := time.Date(2031, 5, 6, 7, 8, 9, 123456789, time.FixedZone("", 3600))
	const stated = "2030-01-02T03:04:05Z"
	said, err := time.Parse(time.RFC3339, stated)
	require.NoError(t, err)
	enveloped := func(attributes, data string) string {
		return fmt.Sprintf(`{"specversion":"1.0","id":"<1>","source":"/b","type":"integration.disconnected"%s,%s}`, attributes, data)
	}
	for name, c := range map[string]struct {
		body string
		want time.Time
		same bool
	}{
		"plain":                           {`{"userId":"<ü>"}`, arrived, false},
		"plain with null":                 {`{"userId":"<ü>","disconnectedAt":null,"specversion":null}`, arrived, false},
		"plain with its time":             {`{"userId":"<ü>","disconnectedAt":"` + stated + `"}`, said, true},
		"enveloped":                       {enveloped(``, `"data":{"userId":"<ü>"}`), arrived, false},
		"enveloped with null":             {enveloped(`,"time":null`, `"data":{"userId":"<ü>"}`), arrived, false},
		"enveloped in base64":             {enveloped(``, `"data_base64":"eyJ1c2VySWQiOiI8w7w+In0="`), arrived, false},
		"enveloped with its time":         {enveloped(`,"time":"`+stated+`"`, `"data":{"userId":"<ü>"}`), said, true},
		"enveloped with time in the body": {enveloped(``, `"data":{"userId":"<ü>","disconnectedAt":"`+stated+`"}`), said, false},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := keepTime(DeadLetter{ID: "id", Message: events.IntegrationDisconnected, StoredAt: arrived}, []byte(c.body))
			require.NoError(t, err)
			if c.same {
				require.Equal(t, c.body, string(out))
			}
			got, err := events.DecodeDisconnected(out)
			require.NoError(t, err)
			require.True(t, c.want.Equal(got.DisconnectedAt), "%s: %s", got.DisconnectedAt, out)
			got.DisconnectedAt = time.Time{}
			require.Equal(t, events.Disconnected{UserID: "<ü>"}, got)
		})
	}
}

func TestWhatHasNoTimeToKeepIsReplayedAsItIs(t *testing.T) {
	letter := DeadLetter{ID: "id", Message: events.IntegrationConnected, StoredAt: time.Unix(1, 0)}
	for _, body := range []string{"", "token", `"token"`, "null", "[]", "7", `{"userId":"a","userId":"b"}`, "{\"userId\":\"\xff\"}", `{"userId":"a"}}`} {
		out, err := keepTime(letter, []byte(body))
		require.NoError(t, err)
		require.Equal(t, body, string(out))
	}
	unknown := letter
	unknown.StoredAt = time.Time{}
	due := letter
	due.Message = events.RefreshDueName
	for _, letter := range []DeadLetter{unknown, due} {
		out, err := keepTime(letter, []byte(`{"userId":"a"}`))
		require.NoError(t, err)
		require.Equal(t, `{"userId":"a"}`, string(out))
	}
}

func TestDeadLettersGoBackOnlyToWhereWorkersRead(t *testing.T) {
	subjects := events.Subjects{Prefix: "eu"}
	p := &DeadLetters{Subjects: subjects}
	for message, back := range map[string][2]string{
		events.IntegrationConnected:    {subjects.Connected(), subjects.IntegrationStream()},
		events.IntegrationDisconnected: {subjects.Disconnected(), subjects.IntegrationStream()},
		events.RefreshDueName:          {subjects.RefreshDue(), subjects.RefreshStream()},
		RecoveryName:                   {subjects.Recovery("grant"), subjects.RecoveryStream()},
	} {
		stream, ok := p.origin(DeadLetter{Message: message, Subject: back[0]})
		require.True(t, ok, message)
		require.Equal(t, back[1], stream)
		for _, elsewhere := range []string{"", "elsewhere", subjects.TokenGet("u"), subjects.DeadLetter(events.UnknownTag, message), "x" + back[0]} {
			_, ok := p.origin(DeadLetter{Message: message, Subject: elsewhere})
			require.False(t, ok, elsewhere)
		}
	}
	_, ok := p.origin(DeadLetter{Message: "token.get", Subject: subjects.Connected()})
	require.False(t, ok)

	subjects.Partitions = 3
	last := subjects.RefreshPartitions()[2]
	_, ok = p.origin(DeadLetter{Message: events.RefreshDueName, Subject: last.Due})
	require.False(t, ok)
	p.Subjects = subjects
	for _, subject := range []string{last.Due, last.Urgent} {
		stream, ok := p.origin(DeadLetter{Message: events.RefreshDueName, Subject: subject})
		require.True(t, ok, subject)
		require.Equal(t, last.Stream, stream)
	}
}
