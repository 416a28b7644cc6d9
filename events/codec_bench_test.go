package events_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
)

// operations returns what is timed, and of which allocations are guarded.
func operations(t testing.TB) map[string]func() {
	end := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	reply := events.TokenReply{
		AccessTokens: []events.IntegrationAccessToken{{AccountID: "acc-1", AccountName: "Main", AccessToken: secret.New("no token, but as long as some are"), BrokerType: "coinbase", BrokerName: "Coinbase"}},
		Expiries:     []events.TokenExpiry{{AccountID: "acc-1", GrantID: "g1", ExpiresAt: &end, RefreshTokenExpiresAt: &end}},
	}
	lifecycle, err := events.DecodeLifecycle([]byte(lifecycleBody))
	require.NoError(t, err)
	subject := events.EncodeUserID("user-1")
	decode := func(name, text string) func() {
		body := []byte(text)
		return func() { require.NoError(t, decoders[name](body)) }
	}
	return map[string]func(){
		"decode connect":       decode("connected", accessTokenForm),
		"decode token request": decode("token request", tokenRequestBody),
		"decode subject": func() {
			_, err := events.DecodeUserID(subject)
			require.NoError(t, err)
		},
		"encode reply": func() {
			_, err := reply.Encode()
			require.NoError(t, err)
		},
		"encode event": func() {
			_, err := lifecycle.Encode()
			require.NoError(t, err)
		},
	}
}

func BenchmarkCodec(b *testing.B) {
	for name, do := range operations(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				do()
			}
		})
	}
}
