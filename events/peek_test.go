package events_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

func TestPeekUserFindsWhomABrokenBodyConcerns(t *testing.T) {
	for body, want := range map[string]string{
		`{"userId":"u","payload":{}}`:                              "u",
		`{"payload":{"userId":"x"},"userId":"u"`:                   "u",
		`{"userId":"u","userId":"v"}`:                              "v",
		"{\"bad\":\"\xff\",\"userId\":\"u\"}":                      "u",
		`{"specversion":"1.0","data":{"a":[],"userId":"u"},`:       "u",
		`{"data":{"a":1},"userId":"u"}`:                            "u",
		`{"data":"userId","userId":"\u0075"}`:                      "u",
		`{"userId":7,"x":{"userId":"u"}}`:                          "",
		`{"userId":""}`:                                            "",
		`{"userId":"` + strings.Repeat("u", 257) + `"}`:            "",
		`{"userId":"a\u0000"}`:                                     "",
		`{"userId":"u`:                                             "",
		`["userId","u"]`:                                           "",
		`"userId"`:                                                 "",
		`{}`:                                                       "",
		`{"data":{}}`:                                              "",
		`{"data":{"data":{"userId":"u"}}}`:                         "",
		`{"data":{"userId":"x"},"userId":"u"}`:                     "u",
		`{"specversion":"1.0","data":{"userId":"u"},"userId":"x"}`: "u",
		``: "",
		`{"payload":` + strings.Repeat("[", 20000): "",
	} {
		got, ok := events.PeekUser([]byte(body))
		require.Equal(t, want != "", ok, body)
		if ok {
			require.Equal(t, want, got, body)
		}
	}
}

func FuzzPeekUser(f *testing.F) {
	f.Add([]byte(`{"userId":"u"}`))
	f.Add([]byte(`{"data":{"userId":"u"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		user, ok := events.PeekUser(body)
		require.Equal(t, ok, ok && events.CheckUserID(user) == nil)
		// What decodes is the user's of whom the decoder says so.
		if c, err := events.DecodeDisconnected(body); err == nil {
			require.True(t, ok)
			require.Equal(t, c.UserID, user)
		}
	})
}
