package streams_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/store/streams"
	"github.com/latchkey/latchkey/store/streams/streamstest"
)

func TestSecureDeleteNamesWhatItCouldNotDelete(t *testing.T) {
	nc, err := nats.Connect(enginestest.NATS(t).URL())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	cfg := config.Default()
	cfg.NATS.Prefix = strings.ReplaceAll(enginestest.Name(t), "_", "-")
	_, err = streamstest.New(js, cfg, zap.NewNop()).Ensure(t.Context())
	require.NoError(t, err)
	subjects := cfg.NATS.Subjects()
	stream, subject := subjects.RecoveryStream(), subjects.Recovery("g")
	_, err = streams.SecureDelete(t.Context(), js, "nowhere", subject, nil)
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
	for range 3 {
		_, err := js.Publish(t.Context(), subject, nil)
		require.NoError(t, err)
	}
	// The audit log's messages can't be deleted.
	_, err = js.Publish(t.Context(), subjects.AuditPartition("chain").Chain("chain"), nil)
	require.NoError(t, err)
	_, err = streams.SecureDelete(t.Context(), js, subjects.AuditStream(), subjects.AuditPartitions()[0].Chains, nil)
	require.ErrorContains(t, err, "erasing from "+subjects.AuditStream())
	cause := errors.New("cause")
	_, err = streams.SecureDelete(t.Context(), js, stream, subject, func(*jetstream.RawStreamMsg) (bool, error) { return false, cause })
	require.ErrorIs(t, err, cause)
	_, err = js.Publish(t.Context(), subjects.Recovery("h"), nil)
	require.NoError(t, err)
	_, err = js.Publish(t.Context(), subjects.Recovery("h"), nil)
	require.NoError(t, err)
	first := true
	deleted, err := streams.SecureDelete(t.Context(), js, stream, subjects.Recovery("h"), func(*jetstream.RawStreamMsg) (bool, error) {
		defer func() { first = false }()
		if first {
			return false, cause
		}
		return true, nil
	})
	require.ErrorIs(t, err, cause)
	require.Equal(t, 1, deleted, "one that fails keeps no other")

	s, err := js.Stream(t.Context(), stream)
	require.NoError(t, err)
	deleted, err = streams.SecureDelete(t.Context(), js, stream, subject, func(m *jetstream.RawStreamMsg) (bool, error) {
		if m.Sequence == 2 { // handled by another meanwhile
			return true, s.DeleteMsg(t.Context(), m.Sequence)
		}
		return m.Sequence == 1, nil
	})
	require.NoError(t, err)
	require.Equal(t, 1, deleted)
	left := 0
	for msg, err := range streams.Messages(t.Context(), s, subject, 1) {
		require.NoError(t, err)
		require.Equal(t, subject, msg.Subject)
		left++
	}
	require.Equal(t, 1, left)
}
