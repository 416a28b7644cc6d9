package workerprocess_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/workerprocess"
)

func TestMetricsAreRead(t *testing.T) {
	exposition := `# TYPE refreshes counter
refreshes{broker="a"} 2
refreshes{broker="b"} 3
# TYPE ready gauge
ready 1
# TYPE late histogram
late_bucket{le="0.5"} 4
late_bucket{le="+Inf"} 6
late_sum 9
late_count 6
`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			_, _ = io.WriteString(w, exposition)
		}
	}))
	t.Cleanup(server.Close)
	address := strings.TrimPrefix(server.URL, "http://")
	m, err := workerprocess.ReadMetrics(t.Context(), address)
	require.NoError(t, err)
	require.InDelta(t, 5, m.Value("refreshes"), 0)
	require.InDelta(t, 1, m.Value("ready"), 0)
	require.Zero(t, m.Value("unknown"))
	bounds, counts := m.Buckets("late")
	require.Len(t, bounds, 2)
	require.InDelta(t, 0.5, bounds[0], 0)
	require.Equal(t, []float64{4, 6}, counts)

	exposition = "no metrics {"
	_, err = workerprocess.ReadMetrics(t.Context(), address)
	require.Error(t, err)
	server.Close()
	_, err = workerprocess.ReadMetrics(t.Context(), address)
	require.Error(t, err)
}
