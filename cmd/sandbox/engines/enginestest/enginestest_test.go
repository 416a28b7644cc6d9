package enginestest_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
)

func TestRealServersAreUsedWhereNamed(t *testing.T) {
	t.Setenv(enginestest.NATSVariable, "nats://real.example")
	t.Setenv(enginestest.MongoDBVariable, "mongodb://real.example")
	require.Equal(t, "nats://real.example", enginestest.NATS(t).URL())
	require.Equal(t, "mongodb://real.example", enginestest.MongoDB(t).URI())
}

func TestRealServersAreNotMadeToFail(t *testing.T) {
	t.Setenv(enginestest.NATSVariable, "nats://real.example")
	t.Setenv(enginestest.MongoDBVariable, "mongodb://real.example")
	for name, fail := range map[string]func(testing.TB){
		"NATS stop":       func(t testing.TB) { enginestest.NATS(t).Stop() },
		"NATS restart":    func(t testing.TB) { enginestest.NATS(t).Restart() },
		"NATS wipe":       func(t testing.TB) { enginestest.NATS(t).Wipe() },
		"MongoDB stop":    func(t testing.TB) { enginestest.MongoDB(t).Stop() },
		"MongoDB restart": func(t testing.TB) { enginestest.MongoDB(t).Restart() },
		"MongoDB proxy":   func(t testing.TB) { enginestest.MongoDB(t).Proxy() },
	} {
		s := &skipRecorder{TB: t}
		require.PanicsWithValue(t, s, func() { fail(s) }, name)
		require.Contains(t, s.reason, "needs an embedded", name)
	}
}

// skipRecorder is a test that notes being skipped.
type skipRecorder struct {
	testing.TB
	reason string
}

func (s *skipRecorder) Skipf(format string, _ ...any) {
	s.reason = format
	panic(s)
}

func TestNamesAreFitAndUnique(t *testing.T) {
	fit := regexp.MustCompile(`^[A-Za-z0-9_]{1,40}$`)
	t.Run("with spaces, a "+strings.Repeat("long name ", 10)+"and Ünïcödé", func(t *testing.T) {
		a, b := enginestest.Name(t), enginestest.Name(t)
		require.Regexp(t, fit, a)
		require.Regexp(t, fit, b)
		require.NotEqual(t, a, b)
	})
}
