package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// process is a worker in a process of its own.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // how it ended
	url   string
}

// startProcess starts a worker, which ends with ctx, and returns when it is ready.
func startProcess(ctx context.Context, exe, log string, env []string) (*process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening a worker's log: %w", err)
	}
	defer func() { _ = file.Close() }() // the process has it open
	p := &process{cmd: exec.CommandContext(ctx, exe, "worker"), ended: make(chan struct{})}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = env, file, file
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = time.Minute
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a worker: %w", err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	if err := p.await(ctx, log); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// await waits until the worker is ready.
func (p *process) await(ctx context.Context, log string) error {
	for {
		if p.url == "" {
			p.url = listener(log)
		}
		if p.url != "" {
			if res, err := http.Get(p.url + "/readyz"); err == nil {
				res.Body.Close()
				if res.StatusCode == http.StatusOK {
					return nil
				}
			}
		}
		select {
		case <-p.ended:
			tail, _ := os.ReadFile(log)
			return fmt.Errorf("a worker ended before it was ready: %s", tail[max(0, len(tail)-1000):])
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// listener returns the address at which a worker listens, by its log; "" while it does not.
func listener(log string) string {
	all, err := os.ReadFile(log)
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(all) {
		var said struct{ Msg, Address string }
		if json.Unmarshal(line, &said) == nil && said.Msg == "admin listener" {
			return "http://" + said.Address
		}
	}
	return ""
}

// stop ends the worker as an orchestrator would.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails when it has ended
	<-p.ended
	if p.err != nil {
		return fmt.Errorf("a worker did not stop cleanly: %w", p.err)
	}
	return nil
}

type metrics map[string]*dto.MetricFamily

func (p *process) metrics(ctx context.Context) (metrics, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking a worker for its metrics: %w", err)
	}
	defer res.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	all, err := parser.TextToMetricFamilies(res.Body)
	if err != nil {
		return nil, fmt.Errorf("reading a worker's metrics: %w", err)
	}
	return all, nil
}

// value returns the sum of a counter or gauge over its labels.
func (m metrics) value(name string) float64 {
	sum := 0.0
	for _, one := range m[name].GetMetric() {
		sum += one.GetCounter().GetValue() + one.GetGauge().GetValue()
	}
	return sum
}

// buckets returns the upper bounds and cumulative counts of a histogram without labels.
func (m metrics) buckets(name string) (bounds, counts []float64) {
	for i, one := range m[name].GetMetric() {
		for j, b := range one.GetHistogram().GetBucket() {
			if i == 0 {
				bounds, counts = append(bounds, b.GetUpperBound()), append(counts, 0)
			}
			counts[j] += float64(b.GetCumulativeCount())
		}
	}
	return bounds, counts
}
