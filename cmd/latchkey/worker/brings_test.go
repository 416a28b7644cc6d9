package worker_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

// TestWhatAConnectBringsComesBack: labels and token ids reach those who ask, for a
// user with as long an id as there may be, and publishers hear of what changed
// nothing.
func TestWhatAConnectBringsComesBack(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.worker()
	user := strings.Repeat("\U0001F511", events.MaxUserIDChars)
	rejected := make(chan *nats.Msg, 10)
	_, err := h.nc.ChanSubscribe(h.subjects.Rejected(user), rejected)
	require.NoError(t, err)
	reason := func() events.RejectedReason {
		select {
		case msg := <-rejected:
			e, err := events.DecodeRejected(msg.Data)
			require.NoError(t, err)
			require.Equal(t, user, e.Data.UserID)
			return e.Data.Reason
		case <-time.After(patience):
			require.Fail(t, "nobody is told")
			return ""
		}
	}
	at := time.Now().Add(-time.Hour)
	connect := func(at time.Time, token, labels string) {
		h.publish(h.subjects.Connected(), fmt.Sprintf(`{"userId":%q,"connectedAt":%q,"labels":%s,"payload":{"brokerType":"managed","expiresInSeconds":60,
			"accountTokens":[{"account":{"accountId":"a"},"accessToken":"x","tokenId":%q}]}}`, user, at.Format(time.RFC3339Nano), labels, token))
	}
	connect(at, "handle-1", `{"integrationId":"i-1"}`)
	require.Equal(t, map[string]string{"integrationId": "i-1"}, h.event(events.TokenStored, user).Data.Labels)
	reply, code, _ := h.ask(events.TokenRequest{UserID: user})
	require.Empty(t, code)
	require.Equal(t, "handle-1", reply.AccessTokens[0].AccessToken.Reveal())
	require.Equal(t, "handle-1", reply.AccessTokens[0].TokenID.Reveal())
	require.Nil(t, reply.Expiries[0].ExpiresAt, "Mesh keeps it alive")
	require.Equal(t, map[string]string{"integrationId": "i-1"}, reply.Expiries[0].Labels)

	connect(at, "handle-1", `{"integrationId":"i-1"}`)
	require.Equal(t, events.RejectedRepeated, reason())
	connect(at.Add(-time.Minute), "handle-0", `{"integrationId":"i-0"}`)
	require.Equal(t, events.RejectedOlder, reason())
	connect(at.Add(time.Minute), "handle-2", `null`)
	require.Equal(t, map[string]string{"integrationId": "i-1"}, h.nth(events.TokenStored, user, 2).Data.Labels, "a connect without labels leaves them")
	connect(at.Add(2*time.Minute), "handle-3", `{"b":"c","app.id":"x"}`)
	require.Equal(t, map[string]string{"b": "c"}, h.nth(events.TokenStored, user, 3).Data.Labels)
	require.Empty(t, rejected)
	require.Nil(t, h.grants(user)[0].Due, "nothing is to be done")
}
