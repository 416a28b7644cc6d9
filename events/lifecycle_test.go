package events_test

import (
	"encoding/json"
	"net/url"
	"testing"
	"time"

	ce "github.com/cloudevents/sdk-go/v2/event"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/events"
)

var reasons = []events.Reason{
	events.ReasonNoRefreshToken, events.ReasonRefreshTokenExpired, events.ReasonMFARequired, events.ReasonRejected,
	events.ReasonNotFound, events.ReasonBadRequest, events.ReasonLegal, events.ReasonRefreshFailing, events.ReasonNotCovered, events.ReasonOutcomeLost,
	events.ReasonUnreadable, events.ReasonRefreshTokenExpiring, events.ReasonDisconnected, events.ReasonReplaced, events.ReasonMoved, events.ReasonSplit,
	events.ReasonRemoved, events.ReasonRemovalRefused, events.ReasonRemovalTimedOut, events.ReasonNoAccessToken,
}

// lifecycleEvents generates events as the worker may send them.
var lifecycleEvents = rapid.Custom(func(t *rapid.T) events.LifecycleEvent {
	text := rapid.StringN(1, -1, -1)
	at := rapid.Map(rapid.Int64Range(0, 253402300799_999), func(ms int64) time.Time { return time.UnixMilli(ms).UTC() })
	end := rapid.Ptr(at, true)
	data := events.Lifecycle{
		UserID: text.Draw(t, "user"), GrantID: rapid.StringMatching(`[a-z2-7]{32}`).Draw(t, "grant"),
		BrokerType: text.Draw(t, "type"), BrokerName: rapid.String().Draw(t, "broker"),
		Accounts: []events.Account{}, Version: rapid.Int64Range(1, 1<<53).Draw(t, "version"),
		ExpiresAt: end.Draw(t, "access"), RefreshTokenExpiresAt: end.Draw(t, "refresh"),
		Reason: rapid.SampledFrom(append(reasons, "")).Draw(t, "reason"),
	}
	for range rapid.IntRange(0, 3).Draw(t, "accounts") {
		data.Accounts = append(data.Accounts, events.Account{AccountID: text.Draw(t, "account"), AccountName: rapid.String().Draw(t, "name")})
	}
	return events.LifecycleEvent{
		ID: rapid.StringMatching(`[a-z0-9.]{1,40}`).Draw(t, "id"), Kind: rapid.SampledFrom(events.LifecycleKinds).Draw(t, "kind"),
		Source: events.SourceOf(rapid.StringMatching(`[a-z0-9-]{0,36}`).Draw(t, "installation")),
		Time:   at.Draw(t, "time"), Data: data,
	}
})

func TestLifecycleRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := lifecycleEvents.Draw(t, "event")
		b, err := want.Encode()
		require.NoError(t, err)
		got, err := events.DecodeLifecycle(b)
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

func TestLifecycleEventsAreCloudEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := lifecycleEvents.Draw(t, "event")
		b, err := want.Encode()
		require.NoError(t, err)

		var event ce.Event
		require.NoError(t, json.Unmarshal(b, &event))
		require.NoError(t, event.Validate())
		require.Equal(t, "1.0", event.SpecVersion())
		require.Equal(t, want.ID, event.ID())
		require.Equal(t, want.Kind, event.Type())
		require.Equal(t, want.Source, event.Source())
		require.Equal(t, want.Data.GrantID, event.Subject())
		require.Equal(t, "application/json", event.DataContentType())
		require.True(t, want.Time.Equal(event.Time()))
		var data events.Lifecycle
		require.NoError(t, event.DataAs(&data))
		require.Equal(t, want.Data, data)
	})
}

func TestSourcesTellInstallationsApart(t *testing.T) {
	require.Equal(t, "latchkey", events.SourceOf(""), "as in events of earlier releases")
	require.Equal(t, "latchkey/5a1b", events.SourceOf("5a1b"))
	require.NotEqual(t, events.SourceOf("a"), events.SourceOf("b"))
	reference, err := url.Parse(events.SourceOf("a b/c?d"))
	require.NoError(t, err)
	require.Equal(t, "latchkey/a b/c?d", reference.Path)

	b, err := events.LifecycleEvent{ID: "e", Kind: events.TokenStored, Data: events.Lifecycle{GrantID: "g"}}.Encode()
	require.NoError(t, err)
	e, err := events.DecodeLifecycle(b)
	require.NoError(t, err)
	require.Equal(t, events.Source, e.Source)
}

func TestAnEventThatCannotBeWrittenIsAnError(t *testing.T) {
	beyond := time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	_, err := events.LifecycleEvent{ID: "e", Kind: events.TokenStored, Data: events.Lifecycle{GrantID: "g", ExpiresAt: &beyond}}.Encode()
	require.ErrorContains(t, err, "encoding token.stored")
}
