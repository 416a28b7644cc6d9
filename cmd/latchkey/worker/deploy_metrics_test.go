package worker_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/handlers"
)

var (
	described = regexp.MustCompile(`fqName: "(latchkey_\w+)".* variableLabels: \{([^}]*)\}`)
	used      = regexp.MustCompile(`\b(latchkey_\w+)(?:\{([^}]*)\})?`)
	selected  = regexp.MustCompile(`(\w+)(=~|!~|!=|=)"([^"]*)"`)
	grouped   = regexp.MustCompile(`\bby \(([^)]*)\)`)
)

// fromOutside are the labels that Prometheus adds, and those of histograms and
// of NATS's exporter.
var fromOutside = map[string]bool{"job": true, "instance": true, "le": true, "consumer_name": true, "stream_name": true}

// TestAlertsAndDashboardKnowTheMetrics holds every query in deploy against what a
// worker registers: names, labels, and those values that are there from the start.
func TestAlertsAndDashboardKnowTheMetrics(t *testing.T) {
	t.Parallel()
	h := start(t, map[string]meshsim.Institution{})
	w := h.worker("LATCHKEY_ADMIN_LISTEN=127.0.0.1:0")
	labels := map[string]map[string]bool{}
	descriptions := make(chan *prometheus.Desc)
	go func() { w.Metrics.Describe(descriptions); close(descriptions) }()
	for d := range descriptions {
		if m := described.FindStringSubmatch(d.String()); m != nil {
			labels[m[1]] = map[string]bool{}
			for _, l := range strings.Split(m[2], ",") {
				labels[m[1]][strings.TrimSpace(l)] = true
			}
		}
	}
	require.Greater(t, len(labels), 15)
	require.Equal(t, 1.0, w.metric("latchkey_ready"))

	ended := w.values("latchkey_grants_expired_total", "reason")
	require.Contains(t, ended, "outcome_lost", "from zero on, so that an alert sees the first")
	require.Contains(t, w.values("latchkey_messages_total", "message"), handlers.RecoveryName, "likewise")

	seen := 0
	for _, query := range queriesOf(t) {
		all := map[string]bool{} // labels of what the query is made of
		for _, m := range used.FindAllStringSubmatch(query, -1) {
			name := m[1]
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if labels[name] == nil {
					name = strings.TrimSuffix(name, suffix)
				}
			}
			require.Contains(t, labels, name, "in: %s", query)
			seen++
			for l := range labels[name] {
				all[l] = true
			}
			for _, s := range selected.FindAllStringSubmatch(m[2], -1) {
				require.True(t, labels[name][s[1]] || fromOutside[s[1]], "%s has no label %s; in: %s", name, s[1], query)
				if name == "latchkey_grants_expired_total" && s[1] == "reason" {
					for _, reason := range strings.Split(s[3], "|") {
						require.Contains(t, ended, reason)
					}
				}
			}
		}
		for _, g := range grouped.FindAllStringSubmatch(query, -1) {
			for _, l := range strings.Split(g[1], ",") {
				require.True(t, all[strings.TrimSpace(l)] || fromOutside[strings.TrimSpace(l)], "by %s: %s", l, query)
			}
		}
	}
	require.Greater(t, seen, 50)

	// The streams and consumers that the autoscaler asks for are there.
	keda, err := os.ReadFile(filepath.Join("..", "..", "..", "deploy", "kubernetes", "components", "keda", "scaledobject.yaml"))
	require.NoError(t, err)
	streams := regexp.MustCompile(`stream: (\S+)\n\s+consumer: (\S+)`).FindAllStringSubmatch(string(keda), -1)
	require.Len(t, streams, 2)
	for _, s := range streams {
		stream, consumer := s[1], s[2]
		if h.subjects.Prefix != "" {
			continue // other names on an outside server
		}
		_, err := h.js.Consumer(h.ctx, stream, consumer)
		require.NoError(t, err, "%s of %s", consumer, stream)
	}
}

// queriesOf returns the expressions of the alerts and of the dashboard.
func queriesOf(t *testing.T) (queries []string) {
	t.Helper()
	deploy := filepath.Join("..", "..", "..", "deploy")
	alerts, err := os.ReadFile(filepath.Join(deploy, "prometheus", "alerts.yaml"))
	require.NoError(t, err)
	for _, rule := range strings.Split(string(alerts), "- alert: ")[1:] {
		_, expr, ok := strings.Cut(rule, "expr: ")
		require.True(t, ok)
		expr, _, ok = strings.Cut(expr, "\n        labels:")
		require.True(t, ok)
		queries = append(queries, expr)
	}
	raw, err := os.ReadFile(filepath.Join(deploy, "grafana", "dashboard.json"))
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	require.NoError(t, json.Unmarshal(raw, &dashboard))
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			queries = append(queries, target.Expr)
		}
	}
	return queries
}

// values returns the values that a label of a metric has.
func (r *running) values(metric, label string) (found []string) {
	families, err := r.Metrics.Gather()
	require.NoError(r.h.t, err)
	for _, f := range families {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if f.GetName() == metric && l.GetName() == label {
					found = append(found, l.GetValue())
				}
			}
		}
	}
	return found
}
