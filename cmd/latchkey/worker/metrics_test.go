package worker_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
)

// section returns what docs/monitoring.md says under a heading.
func section(t *testing.T, heading string) string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/monitoring.md")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(text), "\n## "+heading+"\n")
	require.True(t, found, heading)
	rest, _, _ = strings.Cut(rest, "\n## ")
	return rest
}

var (
	codeSpan   = regexp.MustCompile("`([^`]+)`")
	descriptor = regexp.MustCompile(`fqName: "([^"]+)".*variableLabels: \{([^}]*)\}`)
)

// codes returns what stands in code type in a cell of a table.
func codes(cell string) []string {
	var out []string
	for _, m := range codeSpan.FindAllStringSubmatch(cell, -1) {
		out = append(out, m[1])
	}
	return out
}

// maxBrokerLabels is one more than the broker types that have a label of
// their own.
const maxBrokerLabels = 101

func TestMetricsAreThoseOfTheDocumentation(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	w := h.worker("LATCHKEY_ADMIN_LISTEN=127.0.0.1:0", "LATCHKEY_LIMITS_BREAKER_FAILURES=1", "LATCHKEY_LIMITS_BREAKER_OPEN=1s")
	// More broker types than anybody has, as a hostile publisher would invent.
	for i := range maxBrokerLabels + 4 {
		h.connectAged(fmt.Sprint("u", i), due, spec(fmt.Sprint("broker-", i)), fmt.Sprint("a", i))
	}
	h.connectAged("failing", due, spec("failing"), "f", meshsim.HTTPStatus(503))
	h.connectAged("dead", over, spec("dead"), "d", meshsim.Killed("no"))
	h.event(events.TokenExpired, "dead")
	for i := range maxBrokerLabels + 4 {
		h.event(events.TokenRefreshed, fmt.Sprint("u", i))
	}
	h.event(events.TokenRefreshed, "failing")
	h.get(events.TokenRequest{UserID: "u1"})

	documented := map[string][]string{}
	for _, line := range strings.Split(section(t, "Metrics"), "\n") {
		if cells := strings.Split(line, "|"); len(cells) == 5 && strings.HasPrefix(line, "| `latchkey_") {
			documented[codes(cells[1])[0]] = codes(cells[2])
		}
	}
	registered := map[string][]string{}
	descriptors := make(chan *prometheus.Desc)
	go func() { w.Metrics.Describe(descriptors); close(descriptors) }()
	for d := range descriptors {
		m := descriptor.FindStringSubmatch(d.String())
		require.NotNil(t, m, d.String())
		registered[m[1]] = nil
		if m[2] != "" {
			registered[m[1]] = strings.Split(m[2], ",")
		}
	}
	require.Equal(t, documented, registered)

	problems, err := testutil.GatherAndLint(w.Metrics)
	require.NoError(t, err)
	require.Empty(t, problems)

	families, err := w.Metrics.Gather()
	require.NoError(t, err)
	bounded := 0
	for _, f := range families {
		values := map[string]bool{}
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if l.GetName() == "broker" {
					values[l.GetValue()] = true
				}
			}
		}
		require.LessOrEqual(t, len(values), maxBrokerLabels, f.GetName())
		if values["other"] {
			bounded++
		}
		require.LessOrEqual(t, len(f.Metric), 2*maxBrokerLabels, f.GetName())
	}
	require.GreaterOrEqual(t, bounded, 2, "calls and their duration")
}

// logKey is a key of a line, and lineKeys are those that every line has or that
// the tests' encoder names otherwise.
var (
	logKey   = regexp.MustCompile(`zap\.(?:String|Stringer|Int|Int64|Bool|Duration|Time|NamedError|ByteString|Strings)\("([A-Za-z_]+)"`)
	lineKeys = []string{"time", "level", "msg", "worker", "error"}
)

func TestLogKeysAreThoseOfTheDocumentation(t *testing.T) {
	var documented []string
	text := section(t, "Logs")
	for _, line := range strings.Split(text, "\n") {
		if cells := strings.Split(line, "|"); len(cells) == 4 && strings.HasPrefix(line, "| `") {
			documented = append(documented, codes(cells[1])...)
		}
	}
	intro, _, _ := strings.Cut(text, "Where they apply")
	for _, key := range lineKeys {
		if key != "error" {
			require.Contains(t, codes(intro), key)
		}
	}
	documented = append(documented, lineKeys...)
	used := slices.Clone(lineKeys)
	for _, folder := range []string{"handlers", "refresher", "store", "events", "cmd/latchkey"} {
		used = append(used, keysIn(t, "../../../"+folder)...)
	}
	for _, list := range []*[]string{&documented, &used} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	require.Equal(t, documented, used)
}

// keysIn returns the keys of log lines in the Go files below a folder.
func keysIn(t *testing.T, folder string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range logKey.FindAllSubmatch(text, -1) {
			out = append(out, string(m[1]))
		}
		return err
	})
	require.NoError(t, err)
	return out
}
