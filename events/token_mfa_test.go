package events_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
)

func TestMFARequest(t *testing.T) {
	in := events.MFARequest{UserID: "u", GrantID: "g", Code: secret.New(canary), Version: 3}
	body, err := in.Encode()
	require.NoError(t, err)
	out, err := events.DecodeMFARequest(body)
	require.NoError(t, err)
	require.Equal(t, in.UserID+in.GrantID, out.UserID+out.GrantID)
	require.True(t, in.Code.Equal(out.Code) && in.Version == out.Version)
	for _, body := range []string{
		`{}`, `{"userId":"u","grantId":"g"}`, `{"userId":"u","grantId":"g","code":""}`, `{"userId":"u","grantId":"","code":"1"}`, `{"userId":"u","code":"1"}`,
		`{"userId":"u","grantId":"g","code":246810}`, `{"userId":"u","grantId":"g","code":null}`, `{"userId":"u","grantId":"g","mfaCode":"` + canary + `"}`,
		`{"userId":"u","grantId":"g","code":"1","version":-1}`, `{"userId":"u","grantId":"g","code":"1","version":null}`,
		`{"userId":"u","grantId":"g","code":"` + canary + strings.Repeat("1", 65) + `"}`, `{"userId":"u","grantId":"g","code":"` + canary + `\n"}`,
	} {
		_, err := events.DecodeMFARequest([]byte(body))
		var invalid *events.InvalidError
		require.ErrorAs(t, err, &invalid, body)
		requireClean(t, err, body)
	}
}
