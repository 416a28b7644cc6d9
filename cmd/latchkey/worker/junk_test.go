package worker_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey/latchkey/events"
)

// limitDeadLetters has the stream take no more messages than that; -1: any number.
func (h *harness) limitDeadLetters(most int64) {
	h.t.Helper()
	stream, err := h.js.Stream(h.ctx, h.subjects.DeadLetterStream())
	require.NoError(h.t, err)
	cfg := stream.CachedInfo().Config
	cfg.MaxMsgs, cfg.Discard = most, jetstream.DiscardNew
	_, err = h.js.UpdateStream(h.ctx, cfg)
	require.NoError(h.t, err)
}

// TestJunkOnEverySubjectHoldsUpNobody: more of it than there are places of any
// kind, while no dead letter can be stored. Behind it integrations are connected,
// refreshed and disconnected, and it costs neither KMS nor the database anything.
func TestJunkOnEverySubjectHoldsUpNobody(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	w := h.worker("LATCHKEY_CONNECT_CONCURRENCY=2", "LATCHKEY_REFRESH_CONCURRENCY=2", "LATCHKEY_DATA_KEYS_PER_USER=true",
		"LATCHKEY_MESSAGES_ACK_WAIT=60s", "LATCHKEY_MESSAGES_BACKOFF_MAX=15s")
	h.connectAged("known", fresh, spec("coinbase"), "known")
	h.event(events.TokenStored, "known")
	h.publish(h.subjects.Connected(), "the first") // whose data key serves the others
	h.deadLetters(1)
	h.limitDeadLetters(1)
	var writes atomic.Int64
	if h.stack.MongoDB != nil {
		h.stack.MongoDB.Proxy().FailWrites(91, func(_, collection string) bool {
			if collection == "data_keys" || collection == "grants" || collection == "revocations" {
				writes.Add(1)
			}
			return false
		})
	}

	flood := map[string]int{h.subjects.Connected(): 300, h.subjects.Disconnected(): 300, h.subjects.RefreshDue(): 700, h.subjects.RefreshUrgent(): 300, h.subjects.Recovery("grant"): 300}
	parked := 1
	js, err := jetstream.New(h.nc, jetstream.WithPublishAsyncMaxPending(100), jetstream.WithPublishAsyncTimeout(patience))
	require.NoError(t, err)
	for subject, messages := range flood {
		parked += messages
		for n := range messages {
			_, err := js.PublishAsync(subject, fmt.Appendf(nil, `{"userId":"junk-%d","brokerType":%[1]d,"payload":{},"grantId":%[1]d}`, n), jetstream.WithStallWait(patience))
			require.NoError(t, err)
		}
	}
	<-js.PublishAsyncComplete()
	h.connectAged("due", over, spec("coinbase"), "due")
	h.event(events.TokenStored, "due")
	h.event(events.TokenRefreshed, "due")
	h.disconnect("known", "coinbase", "known")
	h.event(events.TokenRevoked, "known")
	require.Less(t, writes.Load(), int64(100), "the database is written to for junk")
	require.Len(t, h.subjectsOf(h.subjects.DeadLetterStream()), 1)

	h.limitDeadLetters(-1)
	h.eventually(func() bool {
		return w.counter("latchkey_messages_total", "outcome", "parked") == float64(parked)
	}, "not all parked")
	stream, err := h.js.Stream(h.ctx, h.subjects.DeadLetterStream())
	require.NoError(t, err)
	require.EqualValues(t, parked, stream.CachedInfo().State.Msgs)
	n, err := h.mongo().Database(h.database).Collection("data_keys").CountDocuments(h.ctx, bson.D{})
	require.NoError(t, err)
	require.EqualValues(t, 3, n, "one of each user, and one of nobody")
}
