package worker

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/latchkey/latchkey/cmd/latchkey/build"
)

// buildInfo is a metric that names the running build, to show how a release spreads over
// the workers.
func buildInfo() prometheus.Collector {
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "latchkey", Name: "build_info", Help: "Always 1; the labels say what this worker was built from.",
	}, []string{"version", "revision", "goversion"})
	info.WithLabelValues(build.Version(), build.Revision(), runtime.Version()).Set(1)
	return info
}
