package handlers

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

func TestPublishersHearOfWhatChangedNothing(t *testing.T) {
	f := newFixture(t)
	heard := make(chan *nats.Msg, 10)
	_, err := f.js.Conn().ChanSubscribe(f.subjects.RejectedAll(), heard)
	require.NoError(t, err)
	rejections, err := NewRejections(RejectionsOptions{Conn: f.js.Conn(), Subjects: f.subjects, Now: time.Now, NewID: func() string { return time.Now().String() }, Limit: rate.NewLimiter(1, 3), Log: f.log})
	require.NoError(t, err)
	f.runRoutes(RouterOptions{Subscriber: f.subscriber(1), Rejections: rejections, Routes: []Route{{
		Name: events.IntegrationConnected, Subject: f.subjects.Connected(),
		Handle: Connected(&Connector{ConnectorOptions{Rejections: rejections, Log: f.log}}, nil, config.Default().Connect),
	}}})

	const token = "the-token"
	next := func() events.Rejected {
		msg := enginestest.Receive(t, heard)
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
	one, two := candidate{grant: &store.Grant{ID: "one"}}, candidate{grant: &store.Grant{ID: "two"}}
	for name, c := range map[string]struct {
		happens    func(p *connectOutcome)
		candidates int
		want       events.RejectedReason
	}{
		"nothing to pass over": {func(*connectOutcome) {}, 0, ""},
		"kept":                 {func(p *connectOutcome) { p.store(one, "one", false) }, 1, ""},
		"one of two":           {func(p *connectOutcome) { p.skip(one, older) }, 2, ""},
		"one twice":            {func(p *connectOutcome) { p.skip(one, older); p.skip(one, repeated) }, 2, ""},
		"older":                {func(p *connectOutcome) { p.skip(one, older) }, 1, older},
		"both repeated":        {func(p *connectOutcome) { p.skip(one, repeated); p.skip(two, repeated) }, 2, repeated},
		"one repeated":         {func(p *connectOutcome) { p.skip(one, repeated); p.skip(two, older) }, 2, older},
		"stored and lost": {func(p *connectOutcome) {
			p.store(one, "under another id", true)
			p.end(&store.Grant{ID: "under another id"})
		}, 1, older},
		"stored when it was delivered before, and lost": {func(p *connectOutcome) {
			p.skip(one, repeated)
			p.store(one, "one", false)
			p.end(one.grant)
		}, 1, older},
		"another's grant is lost": {func(p *connectOutcome) { p.store(one, "one", false); p.end(two.grant) }, 1, ""},
	} {
		_, p := withOutcome(t.Context())
		c.happens(p)
		require.Equal(t, c.want, p.reason(c.candidates), name)
	}
	outcomeOf(t.Context()).skip(one, older) // nobody listens
}
