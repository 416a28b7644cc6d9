// Package workerprocess starts workers in processes of their own and reads their metrics,
// for chaos and bench.
package workerprocess

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Start starts a worker with an environment, and appends what it prints to a log file.
func Start(worker *exec.Cmd, env []string, log string) error {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening a worker's log: %w", err)
	}
	defer func() { _ = file.Close() }() // the process has it open
	worker.Env, worker.Stdout, worker.Stderr = env, file, file
	if err := worker.Start(); err != nil {
		return fmt.Errorf("starting a worker: %w", err)
	}
	return nil
}

type Metrics map[string]*dto.MetricFamily

// ReadMetrics reads the metrics of the worker whose admin server listens at an address.
func ReadMetrics(ctx context.Context, address string) (Metrics, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("reading a worker's metrics: %w", err)
	}
	defer res.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	all, err := parser.TextToMetricFamilies(res.Body)
	if err != nil {
		return nil, fmt.Errorf("reading a worker's metrics: %w", err)
	}
	return all, nil
}

// Value returns the sum of a counter or gauge over its labels.
func (m Metrics) Value(name string) float64 {
	sum := 0.0
	for _, one := range m[name].GetMetric() {
		sum += one.GetCounter().GetValue() + one.GetGauge().GetValue()
	}
	return sum
}

// Buckets returns the upper bounds and cumulative counts of a histogram without labels.
func (m Metrics) Buckets(name string) (bounds, counts []float64) {
	for _, one := range m[name].GetMetric() {
		for _, b := range one.GetHistogram().GetBucket() {
			bounds, counts = append(bounds, b.GetUpperBound()), append(counts, float64(b.GetCumulativeCount()))
		}
	}
	return bounds, counts
}
