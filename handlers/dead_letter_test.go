package handlers

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
	"github.com/latchkey/latchkey/store/parts"
)

// small is a broker whose largest message is small, so that many sizes around it
// can be tried.
func small(t *testing.T, maxPayload *int32) *enginestest.Broker {
	t.Helper()
	return enginestest.NATSWith(t, engines.NATSOptions{Configure: func(o *server.Options) { o.MaxPayload = *maxPayload }})
}

// junk returns bytes that no compression makes fewer.
func junk(size int) []byte {
	body := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size)}).Read(body)
	return body
}

// only waits for the only dead letter and returns it.
func (f *fixture) only() ParkedLetter {
	f.t.Helper()
	var found []ParkedLetter
	f.eventually(func() bool {
		if f.left(f.subjects.IntegrationStream()) > 0 {
			return false
		}
		found = nil
		for letter, err := range f.dead.All(f.t.Context()) {
			require.NoError(f.t, err)
			found = append(found, letter)
		}
		return len(found) == 1
	}, "not parked, or not alone")
	n, err := f.dead.Count(f.t.Context())
	require.NoError(f.t, err)
	require.EqualValues(f.t, 1, n)
	return found[0]
}

// refuseAll is a handler that takes nothing.
func refuseAll(context.Context, *message.Message) error {
	return &events.InvalidError{Message: events.IntegrationConnected, Problem: "junk"}
}

// TestWhateverNATSTookInCanBeParked: bodies of every size around what one
// message holds are parked at their first attempt, open as they came, go back as
// they came, and leave nothing behind.
func TestWhateverNATSTookInCanBeParked(t *testing.T) {
	const most = 16 << 10
	maxPayload := int32(most)
	f := newFixtureOn(t, small(t, &maxPayload))
	ctx := t.Context()
	dead, err := f.js.Stream(ctx, f.subjects.DeadLetterStream())
	require.NoError(t, err)
	bodies := map[string][]byte{
		"compressible": bytes.Repeat([]byte{' '}, most),
		"JSON":         []byte(`{"userId":"u","x":"` + strings.Repeat("<", most-100) + `"}`),
		"gzip":         {0x1f, 0x8b, 0x08},
	}
	for _, size := range []int{0, 1, 1000, most/2 - 1000, most / 2, 6000, 6100, 6144, 6200, most - 700, most - 300, most - 200, most - 100, most - 29, most - 1, most} {
		bodies[fmt.Sprintf("%d bytes", size)] = junk(size)
	}
	for name, body := range bodies {
		for _, limit := range []int32{-1, most, 2 << 10} {
			if limit > 0 && limit < most && len(body) < most-100 {
				continue // one size is enough
			}
			t.Run(fmt.Sprintf("%s, stream limit %d", name, limit), func(t *testing.T) {
				cfg := dead.CachedInfo().Config
				cfg.MaxMsgSize = limit
				_, err := f.js.UpdateStream(ctx, cfg)
				require.NoError(t, err)

				msg := nats.NewMsg(f.subjects.Connected())
				msg.Data = body
				if len(body) < most-200 {
					msg.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
				}
				_, err = f.js.PublishMsg(ctx, msg)
				require.NoError(t, err)
				stop := f.run(1, refuseAll)
				letter := f.only()
				stop()
				require.Equal(t, 1, letter.Attempts)
				at, err := f.dead.At(ctx, letter.Sequence, letter.ID)
				require.NoError(t, err)
				require.Equal(t, letter, at)
				opened, err := f.dead.Open(ctx, at.DeadLetter)
				require.NoError(t, err)
				require.True(t, bytes.Equal(body, opened))

				require.NoError(t, f.dead.Replay(ctx, letter))
				require.Zero(t, f.left(f.subjects.DeadLetterStream()), "parts are left")
				stop = f.run(1, func(ctx context.Context, msg *message.Message) error {
					require.True(t, bytes.Equal(body, msg.Payload))
					return refuseAll(ctx, msg)
				})
				letter = f.only()
				stop()
				require.NoError(t, f.dead.Drop(ctx, letter))
				require.Zero(t, f.left(f.subjects.DeadLetterStream()), "parts are left")
			})
		}
	}
}

// TestALongSubjectCanBeParked: a message may come to a subject as long as NATS
// takes, and dead letters say more in theirs.
func TestALongSubjectCanBeParked(t *testing.T) {
	f := newFixture(t)
	subject := f.subjects.Recovery("")
	subject += strings.Repeat("x", 4042-len(subject))
	_, err := f.js.Publish(t.Context(), subject, []byte("junk"))
	require.NoError(t, err)
	require.NoError(t, f.dead.Park(t.Context(), RecoveryName, &delivery{Subject: subject, Attempt: 1}, []byte("junk"), "junk"))
	letter := f.only()
	require.Equal(t, subject, letter.Subject)
	require.Equal(t, events.UnknownTag, letter.Tag)
	require.True(t, f.js.Conn().IsConnected())
}

// TestPartsGoWithTheUser: an erasure takes the parts of a letter along, and those
// that no letter names because a worker died while it parked.
func TestPartsGoWithTheUser(t *testing.T) {
	maxPayload := int32(16 << 10)
	f := newFixtureOn(t, small(t, &maxPayload))
	ctx := t.Context()
	before := time.Now()
	park := func(user string) {
		d := &delivery{Subject: f.subjects.Connected(), Attempt: 1, FirstStoredAt: before, Users: []string{user}, Undecodable: true}
		require.NoError(t, f.dead.Park(ctx, events.IntegrationConnected, d, junk(16<<10), "junk"))
		_, err := parts.Write(ctx, f.js, f.subjects.DeadLetterPart(store.UserTag(user)), "never described", before, junk(10<<10))
		require.NoError(t, err)
	}
	park("erased")
	park("kept")
	n, err := f.dead.Count(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	each := f.left(f.subjects.DeadLetterStream()) / 2
	require.NoError(t, f.dead.Erase(ctx, store.Scope{User: "erased"}, before.Add(-time.Second)))
	require.Equal(t, 2*each, f.left(f.subjects.DeadLetterStream()), "connected after the disconnect")
	require.NoError(t, f.dead.Erase(ctx, store.Scope{User: "erased"}, before))
	require.Equal(t, each, f.left(f.subjects.DeadLetterStream()))
	letter := f.only()
	require.Equal(t, store.UserTag("kept"), letter.Tag)
	_, err = f.dead.Open(ctx, letter.DeadLetter)
	require.NoError(t, err)
}

func TestALetterWhosePartIsGoneSaysSo(t *testing.T) {
	maxPayload := int32(16 << 10)
	f := newFixtureOn(t, small(t, &maxPayload))
	ctx := t.Context()
	d := &delivery{Subject: f.subjects.Connected(), Attempt: 1}
	require.NoError(t, f.dead.Park(ctx, events.IntegrationConnected, d, junk(16<<10), "junk"))
	letter := f.only()
	require.Greater(t, len(letter.Parts), 1)
	stream, err := f.dead.stream(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.DeleteMsg(ctx, letter.Parts[1]))
	require.ErrorIs(t, f.dead.Replay(ctx, letter), parts.ErrMissing)
	require.Equal(t, letter, f.only())
	require.NoError(t, f.dead.Drop(ctx, letter))
	require.Zero(t, f.left(f.subjects.DeadLetterStream()))
}

// TestALowerLimitLeavesLettersReadable: what was parked under a larger
// max_payload opens, and is not lost where it can't go back.
func TestALowerLimitLeavesLettersReadable(t *testing.T) {
	maxPayload := int32(64 << 10)
	broker := small(t, &maxPayload)
	f := newFixtureOn(t, broker)
	ctx := t.Context()
	d := &delivery{Subject: f.subjects.Connected(), Attempt: 1}
	require.NoError(t, f.dead.Park(ctx, events.IntegrationConnected, d, junk(64<<10), "junk"))
	broker.Stop()
	maxPayload = 16 << 10
	broker.Restart()
	f.eventually(func() bool { return f.js.Conn().IsConnected() && f.js.Conn().MaxPayload() == 16<<10 }, "not connected again")
	letter := f.only()
	body, err := f.dead.Open(ctx, letter.DeadLetter)
	require.NoError(t, err)
	require.True(t, bytes.Equal(junk(64<<10), body))
	require.Error(t, f.dead.Replay(ctx, letter))
	require.Equal(t, letter, f.only())
}

// TestLettersOfEarlierVersionsOpen: their bodies were compressed.
func TestLettersOfEarlierVersionsOpen(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	_, err := w.Write([]byte("the body"))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	sealer, err := f.dead.opts.Envelope.Sealer(ctx, "")
	require.NoError(t, err)
	old := DeadLetter{ID: "old", Message: events.IntegrationConnected, Subject: f.subjects.Connected(), StoredAt: time.Now()}
	old.Sealed = sealer.Seal(compressed.Bytes(), envelope.Binding{Purpose: envelope.PurposeDeadLetter, Grant: "old"})
	require.NoError(t, f.dead.publish(ctx, old, events.UnknownTag))
	letter := f.only()
	body, err := f.dead.Open(ctx, letter.DeadLetter)
	require.NoError(t, err)
	require.Equal(t, "the body", string(body))
	letter.Format = formatPlain // sealed with the body, so that nobody can change it
	_, err = f.dead.Open(ctx, letter.DeadLetter)
	require.ErrorIs(t, err, envelope.ErrSealed)

	cut := old
	cut.ID = "cut"
	cut.Sealed = sealer.Seal(compressed.Bytes()[:compressed.Len()-9], envelope.Binding{Purpose: envelope.PurposeDeadLetter, Grant: "cut"})
	body, err = f.dead.Open(ctx, cut)
	require.ErrorIs(t, err, errFormat)
	require.Empty(t, body, "no part of a body beside an error")
}

// TestReplayedMessagesKeepTheirTime: a message that is replayed has the time at
// which it first came, however often it is, and never a later one.
func TestReplayedMessagesKeepTheirTime(t *testing.T) {
	f := newFixture(t)
	stored := make(chan time.Time, 1)
	handle := func(ctx context.Context, msg *message.Message) error {
		stored <- deliveryOf(msg).FirstStoredAt
		return refuseAll(ctx, msg)
	}
	first := time.Now().Add(-time.Hour)
	require.NoError(t, f.dead.Park(t.Context(), events.IntegrationConnected, &delivery{Subject: f.subjects.Connected(), FirstStoredAt: first}, []byte("{}"), "junk"))
	require.False(t, f.only().Replayed)
	for range 2 {
		letter := f.only()
		require.True(t, first.Equal(letter.StoredAt))
		require.NoError(t, f.dead.Replay(t.Context(), letter))
		stop := f.run(1, handle)
		require.True(t, first.Equal(enginestest.Receive(t, stored)))
		require.True(t, f.only().Replayed, "it does not say that it failed again")
		stop()
	}
	now := time.Now()
	require.Equal(t, now, firstStored(nats.Header{parts.HeaderStored: {now.Add(time.Hour).Format(time.RFC3339Nano)}}, now))
	require.Equal(t, now, firstStored(nats.Header{parts.HeaderStored: {"yesterday"}}, now))
	require.Equal(t, now, firstStored(nil, now))
}

// TestWhatLosesItsTimeIsNotReplayed: a connect or disconnect that would count
// from its replay could outrank what came after it.
func TestWhatLosesItsTimeIsNotReplayed(t *testing.T) {
	const most = 16 << 10
	maxPayload := int32(most)
	f := newFixtureOn(t, small(t, &maxPayload))
	full := func(body string) []byte { return []byte(body + strings.Repeat(" ", most-len(body))) }
	for body, undated := range map[string]bool{
		`{"userId":"u","everything":true}`:                                       true,
		`{"userId":"u","accountId":"a","disconnectedAt":"2030-01-02T03:04:05Z"}`: false,
		`{"userId":7}`: false,
	} {
		d := &delivery{Subject: f.subjects.Disconnected(), FirstStoredAt: time.Now()}
		require.NoError(t, f.dead.Park(t.Context(), events.IntegrationDisconnected, d, full(body), "junk"))
		letter := f.only()
		err := f.dead.Replay(t.Context(), letter)
		if undated {
			require.ErrorIs(t, err, ErrNoRoom, body)
			require.NoError(t, f.dead.Drop(t.Context(), letter))
			continue
		}
		require.NoError(t, err, body)
		stream, err := f.js.Stream(t.Context(), f.subjects.IntegrationStream())
		require.NoError(t, err)
		require.NoError(t, stream.Purge(t.Context()))
	}
	letter := DeadLetter{Message: events.IntegrationConnected}
	require.False(t, datesItself(letter, nil, []byte(`{"sealed":"a.b.c.d.e"}`)), "what it holds is not known")
	require.True(t, datesItself(letter, nil, []byte(`junk`)))
}

// TestADisconnectOfAnEarlierReleaseIsReplayed: it named its user and nothing else, and
// counts from when it came.
func TestADisconnectOfAnEarlierReleaseIsReplayed(t *testing.T) {
	f := newFixture(t)
	stored := time.Now().Add(-time.Hour)
	park := func(message, subject, body string) ParkedLetter {
		t.Helper()
		d := &delivery{Subject: subject, Attempt: 1, FirstStoredAt: stored}
		require.NoError(t, f.dead.Park(t.Context(), message, d, []byte(body), "junk"))
		return f.only()
	}
	for _, body := range []string{`{"userId":"u","broker_type":"kraken"}`, `{"userId":"u","brokerType":"kraken","accountId":""}`} {
		letter := park(events.IntegrationDisconnected, f.subjects.Disconnected(), body)
		require.Error(t, f.dead.ReplayEverything(t.Context(), letter), body)
		require.NoError(t, f.dead.Drop(t.Context(), f.only()))
	}
	letter := park(events.IntegrationConnected, f.subjects.Connected(), `{"userId":"u"}`)
	require.ErrorIs(t, f.dead.ReplayEverything(t.Context(), letter), errNoDisconnect)
	require.NoError(t, f.dead.Drop(t.Context(), f.only()))

	letter = park(events.IntegrationDisconnected, f.subjects.Disconnected(), `{"userId":"u"}`)
	require.NoError(t, f.dead.ReplayEverything(t.Context(), letter))
	require.Empty(t, f.tags())
	stream, err := f.js.Stream(t.Context(), f.subjects.IntegrationStream())
	require.NoError(t, err)
	msg, err := stream.GetLastMsgForSubject(t.Context(), f.subjects.Disconnected())
	require.NoError(t, err)
	in, err := events.DecodeDisconnected(msg.Data)
	require.NoError(t, err)
	require.Equal(t, events.Disconnected{UserID: "u", Everything: true}, in)
	require.WithinDuration(t, stored, firstStored(msg.Header, time.Now()), time.Millisecond)
}

func TestDeadLettersGoBackOnlyToWhereWorkersRead(t *testing.T) {
	subjects := events.Subjects{Prefix: "eu"}
	p := &DeadLetters{DeadLettersOptions{Subjects: subjects}}
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
	p.opts.Subjects = subjects
	for _, subject := range []string{last.Due, last.Urgent} {
		stream, ok := p.origin(DeadLetter{Message: events.RefreshDueName, Subject: subject})
		require.True(t, ok, subject)
		require.Equal(t, last.Stream, stream)
	}
}
