package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/latchkey/latchkey/cmd/latchkey/bench"
	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/cmd/sandbox/workerprocess"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

var median = bench.Median

// lateness measures how long after it is due a grant is refreshed, at a steady rate.
func (s *site) lateness(ctx context.Context) ([]Row, error) {
	rate, note := s.DueRate, ""
	if half := s.capacity / 2; half > 0 && half < rate {
		rate, note = half, fmt.Sprintf("; half of what was reached above, since this machine does not do %g", s.DueRate)
	}
	n := max(int(rate*s.DueFor.Seconds()), 1)
	if _, err := s.refresh(ctx, max(n/20, 1)); err != nil { // to warm up
		return nil, err
	}
	before, err := workerprocess.ReadMetrics(ctx, s.workers[0].admin)
	if err != nil {
		return nil, err
	}
	// Time to write all that before the first is due.
	start := time.Now().Add(3*time.Second + time.Duration(n)*time.Millisecond)
	grants, err := s.grants(ctx, n, func(i int) time.Time { return start.Add(time.Duration(float64(i) / rate * float64(time.Second))) })
	if err != nil {
		return nil, err
	}
	h, err := s.countEvents(events.TokenRefreshed)
	if err != nil {
		return nil, err
	}
	if err := s.insert(ctx, s.cfg.MongoDB.Database, grants); err != nil {
		return nil, err
	}
	if err := s.schedule(ctx, grants); err != nil {
		return nil, err
	}
	if late := time.Since(start); late > 0 {
		return nil, fmt.Errorf("the schedules were ready %s after the first of them was due", late)
	}
	s.say("%.0f grants come due a second, for %s", rate, s.DueFor)
	if _, err := h.await(ctx, n); err != nil {
		return nil, err
	}
	after, err := workerprocess.ReadMetrics(ctx, s.workers[0].admin)
	if err != nil {
		return nil, err
	}
	var target *Target // it is stated for the whole rate
	if rate >= s.DueRate {
		target = new(AtMost(1))
	}
	const name = "latchkey_refresh_lateness_seconds"
	bounds, counts := after.Buckets(name)
	_, earlier := before.Buckets(name)
	for i := range earlier {
		counts[i] -= earlier[i]
	}
	return []Row{{
		Figure: fmt.Sprintf("lateness of a refresh at %.0f due/s, 99th percentile", rate), Unit: "s", Values: []float64{quantile(0.99, bounds, counts)}, Target: target,
		Method: fmt.Sprintf("%.0f grants come due each second for %s, one worker; from latchkey_refresh_lateness_seconds%s", rate, s.DueFor, note),
	}}, nil
}

// quantile computes a quantile of a histogram as Prometheus does: values are evenly spread
// within a bucket.
func quantile(q float64, bounds, counts []float64) float64 {
	if len(counts) == 0 || counts[len(counts)-1] == 0 {
		return 0
	}
	rank := q * counts[len(counts)-1]
	i := sort.SearchFloat64s(counts, rank)
	lower, below := 0.0, 0.0
	if i > 0 {
		lower, below = bounds[i-1], counts[i-1]
	}
	return lower + (bounds[i]-lower)*(rank-below)/(counts[i]-below)
}

func (s *site) keys(ctx context.Context) ([]Row, error) {
	calls := 0
	env, err := worker.Envelope(ctx, s.cfg, s.store, time.Now, func(string, error) { calls++ })
	if err != nil {
		return nil, err
	}
	defer env.Close()
	s.say("sealing %d token sets", s.Sealed)
	one, err := s.grants(ctx, 1, func(int) time.Time { return time.Now() })
	if err != nil {
		return nil, err
	}
	for i := range s.Sealed {
		g := one[0]
		sealer, err := env.Sealer(ctx, g.UserID)
		if err != nil {
			return nil, err
		}
		blob := store.SealTokens(sealer, g.tokens, g.Binding())
		if i%100 == 0 {
			if _, err := store.OpenTokens(ctx, env, blob, g.Binding()); err != nil {
				return nil, err
			}
		}
	}
	return []Row{{
		Figure: "calls to KMS", Unit: fmt.Sprintf("for %d sets sealed", s.Sealed), Values: []float64{float64(calls)}, Target: new(AtMost(100)),
		Method: "token sets sealed one after the other as a refresh seals them, each hundredth opened again",
	}}, nil
}

// sharing measures how fast several worker processes handle one backlog.
func (r *run) sharing(ctx context.Context) (rows []Row, err error) {
	connects, refreshes := make([][]float64, len(r.Workers)), make([][]float64, len(r.Workers))
	size := r.Shared
	for round := range r.Rounds {
		if size, err = r.share(ctx, round, size, connects, refreshes); err != nil {
			return nil, err
		}
	}
	for _, kind := range []struct {
		name, unit string
		rates      [][]float64
	}{{"refreshes", "refreshes/s", refreshes}, {"connects", "connects/s", connects}} {
		for i, n := range r.Workers[1:] {
			rows = append(rows, Row{
				Figure: fmt.Sprintf("%s, %d worker processes", kind.name, n), Unit: kind.unit, Values: kind.rates[i+1], Baseline: kind.rates[0],
				Against: fmt.Sprintf("%d worker process", r.Workers[0]), Method: fmt.Sprintf("a backlog of %s; engines and workers share the machine", sizeText(size, r.Shared)),
			})
		}
	}
	return rows, nil
}

// share is one round of sharing. It begins with the most workers: one that starts reconciles,
// for which FerretDB reads all grants.
func (r *run) share(ctx context.Context, round, size int, connects, refreshes [][]float64) (_ int, err error) {
	s, err := r.site(ctx, fmt.Sprint("workers-", round))
	if err != nil {
		return size, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	if err := s.work(ctx, slices.Max(r.Workers)); err != nil {
		return size, err
	}
	for _, do := range []func(context.Context, int) (float64, error){s.connect, s.refresh} {
		rate, err := do(ctx, max(r.Shared/20, 1)) // to warm up
		if err != nil {
			return size, err
		}
		if round == 0 {
			size = fits(size, rate, r.Longest/3) // there are many of these
		}
	}
	for i, n := range slices.Backward(r.Workers) {
		r.say("%d worker(s), %d connects and refreshes, round %d of %d", n, size, round+1, r.Rounds)
		if err := s.work(ctx, n); err != nil {
			return size, err
		}
		rate, err := s.connect(ctx, size)
		if err != nil {
			return size, err
		}
		connects[i] = append(connects[i], rate)
		if rate, err = s.refresh(ctx, size); err != nil {
			return size, err
		}
		refreshes[i] = append(refreshes[i], rate)
	}
	return size, nil
}

// pending compares a worker's memory and CPU time at few and at many pending grants.
func (s *site) pending(ctx context.Context) ([]Row, error) {
	if _, err := s.refresh(ctx, s.Sample); err != nil { // to warm up
		return nil, err
	}
	var memory, cpu [2][]float64
	for i, n := range []int{s.Few, s.Many} {
		if i == 1 {
			n -= s.Few
		}
		if err := s.fill(ctx, n); err != nil {
			return nil, err
		}
		for round := range s.Rounds {
			s.say("refreshing %d of %d pending grants, round %d of %d", s.Sample, []int{s.Few, s.Many}[i], round+1, s.Rounds)
			before, err := workerprocess.ReadMetrics(ctx, s.workers[0].admin)
			if err != nil {
				return nil, err
			}
			if _, err := s.refresh(ctx, s.Sample); err != nil {
				return nil, err
			}
			after, err := workerprocess.ReadMetrics(ctx, s.workers[0].admin)
			if err != nil {
				return nil, err
			}
			const seconds = "process_cpu_seconds_total"
			cpu[i] = append(cpu[i], (after.Value(seconds)-before.Value(seconds))/float64(s.Sample)*1000)
			memory[i] = append(memory[i], after.Value("process_resident_memory_bytes")/(1<<20))
		}
	}
	method := fmt.Sprintf("one worker process, %d grants with a schedule in the stream, to %d in the baseline; after %d refreshes", s.Many, s.Few, s.Sample)
	return []Row{
		{
			Figure: fmt.Sprintf("memory of a worker, %d pending", s.Many), Unit: "MiB", Values: memory[1], Baseline: memory[0],
			Against: fmt.Sprintf("%d pending", s.Few), Method: method, Target: new(AtMost(1.2)),
		},
		{
			Figure: fmt.Sprintf("CPU time of a refresh, %d pending", s.Many), Unit: "ms", Values: cpu[1], Baseline: cpu[0],
			Against: fmt.Sprintf("%d pending", s.Few), Method: "of the same process, by its own count", Target: new(AtMost(1.3)),
		},
	}, nil
}

// copies returns what makes copies of one grant under other names, whose tokens cannot be opened.
func (s *site) copies(ctx context.Context) (func() *store.Grant, error) {
	model, err := s.grants(ctx, 1, func(int) time.Time { return time.Now().Add(lifetime) })
	if err != nil {
		return nil, err
	}
	return func() *store.Grant {
		g := *model[0].Grant
		g.UserID = s.user()
		g.ID = store.GrantID(g.UserID, broker)
		return &g
	}, nil
}

// fill adds n pending grants that do not come due: copies of one under other names, whose
// tokens cannot be opened.
func (s *site) fill(ctx context.Context, n int) error {
	const part = 20 * batch
	begun := time.Now()
	copies, err := s.copies(ctx)
	if err != nil {
		return err
	}
	for done := 0; done < n; {
		grants := make([]testGrant, min(part, n-done))
		for i := range grants {
			grants[i] = testGrant{Grant: copies()}
		}
		if err := s.insert(ctx, s.cfg.MongoDB.Database, grants); err != nil {
			return err
		}
		stored := time.Now()
		if err := s.schedule(ctx, grants); err != nil {
			return err
		}
		done += len(grants)
		s.say("%d of %d grants are pending; %.0f a second, schedules of the last %d took %s", done, n,
			float64(done)/time.Since(begun).Seconds(), len(grants), time.Since(stored).Round(time.Millisecond))
	}
	return nil
}
