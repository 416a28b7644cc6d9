package handlers

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
)

func TestPublishersHearOfWhatChangedNothing(t *testing.T) {
	f := newFixture(t)
	heard := make(chan *nats.Msg, 10)
	_, err := f.js.Conn().ChanSubscribe(f.subjects.RejectedAll(), heard)
	require.NoError(t, err)
	tell := &Rejections{Conn: f.js.Conn(), Subjects: f.subjects, Now: time.Now, NewID: func() string { return time.Now().String() }, Limit: rate.NewLimiter(1, 3), Log: f.log}
	router, err := NewRouter([]Route{{
		Name: events.IntegrationConnected, Subject: f.subjects.Connected(),
		Handle: Connected(&Connector{Rejections: tell, Log: f.log}, nil, config.Default().Connect),
	}}, f.subscriber(1), f.messages, f.dead, patience, f.log, prometheus.NewRegistry())
	require.NoError(t, err)
	router.Rejections = tell
	go func() { _ = router.Run(context.WithoutCancel(t.Context())) }()
	t.Cleanup(func() { _ = router.Close() })

	const token = "the-token"
	next := func() events.Rejected {
		msg := receive(t, heard)
		require.NotContains(t, string(msg.Data), token)
		e, err := events.DecodeRejected(msg.Data)
		require.NoError(t, err)
		require.Equal(t, f.subjects.Rejected(e.Data.UserID), msg.Subject)
		return e.Data
	}
	f.publish(`{"userId":"a.b","payload":{"accessToken":"` + token + `"}}`)
	told := next()
	letter := f.only()
	require.Equal(t, events.Rejected{
		UserID: "a.b", Reason: events.RejectedInvalid, Problem: "payload.accessToken: a JSON string does not fit there",
		DeadLetterID: letter.ID, Stream: f.subjects.IntegrationStream(), Sequence: 1,
	}, told)

	f.publish(`{"specversion":"1.0","id":"mine","source":"s","type":"integration.connected","data":{"userId":"u","payload":{"accountTokens":[{"account":{"accountId":"` + token + `"}}],"brokerType":"b"}}}`)
	require.Equal(t, events.Rejected{UserID: "u", Reason: events.RejectedNothing, EventID: "mine", Stream: f.subjects.IntegrationStream(), Sequence: 2}, next())

	// Nobody is told of what names no user, or several; and no more than the limit.
	f.publish(`{"payload":{}}`)
	f.publish(`{"userId":"v","userId":"w","payload":{}}`)
	f.publish(`{"userId":"last","payload":{}}`)
	require.Equal(t, "last", next().UserID)
	f.publish(`{"userId":"too many","payload":{}}`)
	f.eventually(func() bool { return f.left(f.subjects.IntegrationStream()) == 0 }, "not acknowledged")
	require.Empty(t, heard)
	f.eventually(func() bool { return f.left(f.subjects.LifecycleStream()) == 3 }, "not kept")
}

func TestWhatWasPassedOver(t *testing.T) {
	const older, repeated = events.RejectedOlder, events.RejectedRepeated
	for _, c := range []struct {
		passed     []events.RejectedReason
		candidates int
		want       events.RejectedReason
	}{
		{nil, 0, ""},
		{nil, 1, ""},
		{[]events.RejectedReason{older}, 2, ""},
		{[]events.RejectedReason{older}, 1, older},
		{[]events.RejectedReason{repeated, repeated}, 2, repeated},
		{[]events.RejectedReason{repeated, older}, 2, older},
	} {
		require.Equal(t, c.want, passedOver(c.passed, c.candidates))
	}
	pass(t.Context(), older) // nobody listens
}
