package events_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

func TestFindUsersFindsWhomABrokenBodyConcerns(t *testing.T) {
	for body, want := range map[string]string{
		`{"userId":"u","payload":{}}`:                                                      "u",
		`{"payload":{"userId":"x"},"userId":"u"`:                                           "u",
		`{"userId":"u"}` + "\n" + `{"userId":"v"}`:                                         "u v",
		`{"userId":"u"},{"userId":"v"}`:                                                    "u v",
		`{"userId":"u"}broken{"userId":"v"`:                                                "u v",
		`{"userId":"u","x":broken,"userId":"v"}`:                                           "u v",
		`{"userId":"u","userId":"v"}`:                                                      "u v",
		"\xef\xbb\xbf" + `{"userId":"u"}`:                                                  "u",
		`{"specversion":"1.0","data_base64":"eyJ1c2VySWQiOiJ1In0="}`:                       "u",
		`{"specversion":"1.0","data_base64":"eyJ1c2VySWQiOiJ1In0"}`:                        "u",
		`{"data_base64":"\u0065yJ1c2VySWQiOiJ1In0=","specversion":1}`:                      "u",
		`{"specversion":"1.0","data":{"userId":"v"},"data_base64":"eyJ1c2VySWQiOiJ1In0="}`: "v u",
		`{"specversion":"1.0","data":"{\"userId\":\"u\"}"}`:                                "u",
		`{"specversion":"1.0","data":"eyJ1c2VySWQiOiJ1In0="}`:                              "u",
		`{"user\u0049d":"\u0061lice"}`:                                                     "alice",
		`{x, "userId" : "\u0061lice", "userId":"bob"`:                                      "alice bob",
		"{\"bad\":\"\xff\",\"userId\":\"u\"}":                                              "u",
		`{"specversion":"1.0","data":{"a":[],"userId":"u"},`:                               "u",
		`{"data":{"a":1},"userId":"u"}`:                                                    "u",
		`{"data":"userId","userId":"\u0075"}`:                                              "u",
		`{"userId":7,"x":{"userId":"u"}}`:                                                  "",
		`{"userId":""}`:                                                                    "",
		`{"userId":"` + strings.Repeat("u", 301) + `"}`:                                    "",
		`{"userId":"a\u0000"}`:                                                             "",
		`{"userId":"u`:                                                                     "",
		`["userId","u"]`:                                                                   "",
		`"userId"`:                                                                         "",
		`{}`:                                                                               "",
		`{"data":{}}`:                                                                      "",
		`{"data":{"data":{"userId":"u"}}}`:                                                 "",
		`{"data":{"userId":"x"},"userId":"u"}`:                                             "u",
		`{"specversion":"1.0","data":{"userId":"u"},"userId":"x"}`:                         "u",
		``: "",
		`{"payload":` + strings.Repeat("[", 20000): "",
	} {
		require.Equal(t, want, strings.Join(events.FindUsers([]byte(body)), " "), body)
	}
}

func FuzzFindUsers(f *testing.F) {
	f.Add([]byte(`{"userId":"u"}`))
	f.Add([]byte(`{"data":{"userId":"u"}}`))
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"s","type":"integration.disconnected","data_base64":"eyJ1c2VySWQiOiJ1In0="}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		users := events.FindUsers(body)
		for _, user := range users {
			require.NoError(t, events.CheckUserID(user))
		}
		// What decodes is the user's of whom the decoder says so.
		if c, err := events.DecodeDisconnected(body); err == nil {
			require.Equal(t, []string{c.UserID}, users)
		}
	})
}
