package operator

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/events/options/optionstest"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/streams"
)

func TestConditions(t *testing.T) {
	at := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *time.Time {
		then := at.Add(-d)
		return &then
	}
	checks := func(all ...Check) part[Readiness] { return part[Readiness]{At: at, Value: Readiness{Checks: all}} }
	failing := func(grants int64) part[Failing] {
		return part[Failing]{At: at, Value: Failing{Brokers: []FailingAt{{Broker: "a&b", Grants: grants}}}}
	}
	stock := part[Stock]{At: at, Value: Stock{Brokers: []brokerStock{{Broker: "a&b", ByState: map[store.State]int64{store.Active: 50}}}}}
	runbook, err := os.ReadFile("../../../docs/runbook.md")
	require.NoError(t, err)
	for name, c := range map[string]struct {
		o     Overview
		kind  string
		bad   bool
		title string
		view  string
	}{
		"well":                   {o: Overview{Readiness: checks(Check{Name: "NATS", OK: true, Needed: true}), Failing: failing(9), Stock: stock, Overdue: part[Overdue]{At: at, Value: Overdue{Grants: 3, Since: ago(time.Second)}}}},
		"not ready":              {Overview{Readiness: checks(Check{Name: "NATS", Needed: true, Detail: "reconnecting"}, Check{Name: "receiving", Needed: true, Detail: "nothing comes"})}, "not_ready", true, "NATS: reconnecting; receiving: nothing comes", "workers"},
		"KMS":                    {Overview{Readiness: checks(Check{Name: "KMS", Detail: "calls fail"})}, "degraded", false, "KMS: calls fail", ""},
		"credentials":            {Overview{Own: own{PausedUntil: ago(0)}}, "credentials_refused", true, "Mesh refuses", ""},
		"breaker":                {Overview{Own: own{Brokers: []refresher.BrokerStatus{{Broker: "x", Breaker: "open"}, {Broker: "y", Breaker: "closed"}}}}, "breaker_open", true, "at x", "brokers"},
		"verdicts":               {Overview{Verdicts: part[[]view.Verdicts]{At: at, Value: []view.Verdicts{{Broker: "x", HeldSince: ago(0)}, {Broker: "y"}}}}, "verdicts_held", true, "at x:", "brokers"},
		"late":                   {Overview{Overdue: part[Overdue]{At: at, Value: Overdue{Grants: 1, Since: ago(2 * time.Minute), Most: 5}}}, "overdue", false, "1 grant is overdue, the first since 2m0s", "grants?order=overdue"},
		"overdue":                {Overview{Overdue: part[Overdue]{At: at, Value: Overdue{Grants: 5, Since: ago(time.Hour), Most: 5}}}, "overdue", true, "5+ grants are overdue", "grants?order=overdue"},
		"dead letters":           {Overview{Letters: part[uint64]{At: at, Value: 2}}, "dead_letters", false, "2 dead letters wait", "dead-letters"},
		"failing":                {Overview{Failing: failing(10), Stock: stock}, "failing", false, "10 of 50 active grants at a&b", "grants?broker=a%26b&order=failed&state=active"},
		"something is not known": {Overview{Stock: part[Stock]{Problem: "the number of grants can't be read now"}}, "unknown", false, "the number of grants can't be read now", ""},
	} {
		got := conditions(&c.o)
		if c.kind == "" {
			require.Empty(t, got, name)
			require.NotNil(t, got, name)
			continue
		}
		require.Len(t, got, 1, name)
		require.Equal(t, c.kind, got[0].Kind, name)
		require.Equal(t, c.bad, got[0].Bad, name)
		require.Contains(t, got[0].Title, c.title, name)
		require.Equal(t, c.view, got[0].View, name)
		require.NotEmpty(t, got[0].Do, name)
		require.Contains(t, strings.Split(string(runbook), "\n"), "### "+got[0].Runbook, "%s: the runbook has no such section", name)
	}
	require.Equal(t, "a, b, c, d, e and 2 more", some(strings.Split("abcdefg", "")))
}

func TestEveryRequiredOptionIsNamed(t *testing.T) {
	o := Options{
		Store: &store.Store{}, Refresher: &refresher.Refresher{}, Streams: &streams.Topology{}, Letters: &handlers.DeadLetters{},
		NATS: &nats.Conn{}, JetStream: &struct{ jetstream.JetStream }{}, Refused: func(error) (string, string) { return "", "" },
		Metrics: prometheus.NewRegistry(), Service: "tokens", WorkerID: "a", Ready: func(context.Context) Readiness { return Readiness{} },
		Now: time.Now, Log: zap.NewNop(),
	}
	optionstest.Required(t, New, o, "Store", "Refresher", "Streams", "Letters", "NATS", "JetStream", "Refused", "Metrics", "Service", "WorkerID", "Ready", "Now", "Log")
}
