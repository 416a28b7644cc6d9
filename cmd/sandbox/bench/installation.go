package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/workerprocess"
)

// installation measures how far one installation goes: how many refreshes a second its workers make together when Mesh
// takes a while to answer and the database none, by the number of partitions, and what binds.
func (r *run) installation(ctx context.Context) (rows []Row, err error) {
	taken := make([]*installed, len(r.Partitions))
	for i, n := range r.Partitions {
		taken[i] = &installed{partitions: n}
	}
	var events []Row
	for round := range r.Rounds {
		for _, i := range taken {
			r.say("refreshing with %d partition(s), round %d of %d", i.partitions, round+1, r.Rounds)
			more, err := r.installed(ctx, i, fmt.Sprintf("installation-%d-%d", round, i.partitions), round == 0 && i == taken[0])
			if err != nil {
				return nil, err
			}
			events = append(events, more...)
		}
	}
	for _, i := range taken {
		rows = append(rows, i.rows(r.Options)...)
	}
	return append(rows, events...), nil
}

// installed is what was measured with a number of partitions, round by round.
type installed struct {
	partitions, refreshes                   int
	rates, workers, nats, others, busy, top []float64
}

func (i *installed) rows(o Options) []Row {
	with := fmt.Sprintf("%d partition(s)", i.partitions)
	workers := slices.Max(o.Workers)
	row := func(figure, unit string, values []float64, method string) Row {
		return Row{Figure: figure + ", " + with, Unit: unit, Values: values, Method: method}
	}
	rate := row("refreshes of one installation", "refreshes/s", i.rates, fmt.Sprintf("a backlog of %s, %d worker processes with %d refreshes at once each, Mesh answers after %s; %s",
		sizeText(i.refreshes, o.Refreshes), workers, o.Concurrency, o.Latency, atOnce))
	if rate.Baseline = i.top; len(i.top) > 0 {
		rate.Against = "what so many refreshes at once allow if nothing but Mesh takes time"
	}
	return []Row{
		rate,
		row("CPU time of a refresh, workers", "ms", i.workers, "of the same refreshes; of the processes of all workers, by their own count"),
		row("CPU time of a refresh, NATS", "ms", i.nats, "likewise, of a NATS server in a process of its own"),
		row("CPU time of a refresh, all else", "ms", i.others, "likewise, of the bench: the database in memory, simulated Mesh and KMS, and a subscriber that counts events"),
		row("cores in use", fmt.Sprintf("of %d", runtime.NumCPU()), i.busy, "by all of these; near the number of cores, CPU time binds"),
	}
}

// installed measures one round, and the first time how fast NATS alone takes events.
func (r *run) installed(ctx context.Context, to *installed, name string, withEvents bool) (rows []Row, err error) {
	at := *r
	dir, err := r.folder("latchkey-bench-nats-")
	if err != nil {
		return nil, err
	}
	server, url, err := r.startNATS(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	at.NATSURL = url
	return at.onMemory(ctx, name, func(s *site, ctx context.Context, _ *engines.Memory) ([]Row, error) {
		if err := s.work(ctx, slices.Max(s.Workers)); err != nil {
			return nil, err
		}
		if err := s.refreshing(ctx, server, to); err != nil || !withEvents {
			return nil, err
		}
		return s.events(ctx, server)
	}, fmt.Sprint("LATCHKEY_NATS_PARTITIONS=", to.partitions), fmt.Sprint("LATCHKEY_REFRESH_CONCURRENCY=", r.Concurrency))
}

// refreshing measures refreshes by all workers.
func (s *site) refreshing(ctx context.Context, server *process, to *installed) error {
	if s.Latency > 0 {
		if _, err := s.stack.Mesh.Inject(meshsim.Fault{BrokerType: broker, Operation: meshsim.OpRefresh, Action: meshsim.Delay(s.Latency, s.Latency)}); err != nil {
			return fmt.Errorf("slowing Mesh down: %w", err)
		}
		to.top = append(to.top, float64(len(s.workers)*s.Concurrency)/s.Latency.Seconds())
	}
	n, err := s.warmUp(s.Refreshes, s.Longest, func(n int) (float64, error) { return s.refresh(ctx, n) })
	if err != nil {
		return err
	}
	var before spent
	rate, err := s.refreshFrom(ctx, n, nothing, func() (err error) { before, err = s.spent(ctx, server); return err })
	if err != nil {
		return err
	}
	after, err := s.spent(ctx, server)
	if err != nil {
		return err
	}
	const ms = 1000
	workers, nats, others := after.workers-before.workers, after.nats-before.nats, after.others-before.others
	to.refreshes = n
	to.rates, to.busy = append(to.rates, rate), append(to.busy, (workers+nats+others)/float64(n)*rate)
	to.workers, to.nats, to.others = append(to.workers, workers/float64(n)*ms), append(to.nats, nats/float64(n)*ms), append(to.others, others/float64(n)*ms)
	return nil
}

// spent is the CPU time that processes have taken, in seconds.
type spent struct{ workers, nats, others float64 }

func (s *site) spent(ctx context.Context, server *process) (all spent, err error) {
	if all.workers, err = s.workersCPU(ctx); err != nil {
		return all, err
	}
	if all.nats, err = cpuOf(ctx, server); err != nil {
		return all, err
	}
	own, err := processMetrics().Gather()
	for _, family := range own {
		if family.GetName() == cpuSeconds {
			all.others = family.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return all, err
}

func (s *site) workersCPU(ctx context.Context) (sum float64, err error) {
	for _, w := range s.workers {
		one, err := cpuOf(ctx, w)
		if err != nil {
			return 0, err
		}
		sum += one
	}
	return sum, nil
}

const cpuSeconds = "process_cpu_seconds_total"

func cpuOf(ctx context.Context, p *process) (float64, error) {
	metrics, err := workerprocess.ReadMetrics(ctx, p.admin)
	if err != nil {
		return 0, err
	}
	return metrics.Value(cpuSeconds), nil
}

// eventBytes is the length of an event's body, with which it has 0.75 KB: the rest are headers.
const eventBytes = 600

// events measures how fast NATS alone takes lifecycle events, into one stream and into several.
func (s *site) events(ctx context.Context, server *process) (rows []Row, err error) {
	n := 5 * s.Refreshes
	body := []byte(strings.Repeat("e", eventBytes))
	rates, cpu := map[int][]float64{}, map[int][]float64{}
	several := max(slices.Max(s.Partitions), 2)
	for round := range s.Rounds + 1 { // the first is not counted
		for _, streams := range []int{1, several} {
			s.say("publishing %d events into %d stream(s), round %d of %d", n, streams, round, s.Rounds)
			prefix := fmt.Sprintf("%s.events.%d.%d", s.subjects.Prefix, round, streams)
			if err := s.eventStreams(ctx, prefix, streams); err != nil {
				return nil, err
			}
			before, err := cpuOf(ctx, server)
			if err != nil {
				return nil, err
			}
			rate, err := timed(n, func() error {
				for i := range n {
					msg := nats.NewMsg(fmt.Sprintf("%s.%d.user-%d", prefix, i%streams, i))
					msg.Data = body
					msg.Header.Set("Content-Type", "application/cloudevents+json")
					if _, err := s.js.PublishMsgAsync(msg, jetstream.WithMsgID(uuid.NewString()), jetstream.WithStallWait(time.Minute)); err != nil {
						return fmt.Errorf("publishing events: %w", err)
					}
				}
				return s.published(ctx)
			})
			if err != nil {
				return nil, err
			}
			after, err := cpuOf(ctx, server)
			if err != nil {
				return nil, err
			}
			if round > 0 {
				rates[streams], cpu[streams] = append(rates[streams], rate), append(cpu[streams], (after-before)/float64(n)*1e6)
			}
		}
	}
	one := "one stream with the settings of that of lifecycle events"
	return []Row{
		{Figure: "events of 0.75 KB into one stream", Unit: "events/s", Values: rates[1], Method: fmt.Sprintf("%d published by one client as fast as NATS takes them, into %s; no worker and no subscriber reads them", n, one)},
		{Figure: fmt.Sprintf("events of 0.75 KB into %d streams", several), Unit: "events/s", Values: rates[several], Baseline: rates[1], Against: "into one stream", Method: "the same, in turn"},
		{Figure: "CPU time of an event, NATS, one stream", Unit: "µs", Values: cpu[1], Method: "of the server's process"},
		{Figure: fmt.Sprintf("CPU time of an event, NATS, %d streams", several), Unit: "µs", Values: cpu[several], Method: "likewise"},
	}, nil
}

// eventStreams makes streams like that of lifecycle events.
func (s *site) eventStreams(ctx context.Context, prefix string, n int) error {
	like, err := s.js.Stream(ctx, s.subjects.LifecycleStream())
	if err != nil {
		return fmt.Errorf("reading the settings of a stream: %w", err)
	}
	for i := range n {
		cfg := like.CachedInfo().Config
		cfg.Name = fmt.Sprintf("%s_%d", strings.ReplaceAll(strings.ToUpper(prefix), ".", "_"), i)
		cfg.Subjects, cfg.Metadata, cfg.MaxBytes = []string{fmt.Sprintf("%s.%d.*", prefix, i)}, nil, -1
		cfg.SubjectTransform, cfg.RePublish = nil, nil // which are for the subjects of a partition
		if _, err := s.js.CreateStream(ctx, cfg); err != nil {
			return fmt.Errorf("making a stream: %w", err)
		}
	}
	return nil
}

// published waits until NATS has acknowledged what was published.
func (s *site) published(ctx context.Context) error {
	select {
	case <-s.js.PublishAsyncComplete():
		return nil
	case <-time.After(stallTimeout):
		return fmt.Errorf("%d events were not acknowledged within %s", s.js.PublishAsyncPending(), stallTimeout)
	case <-ctx.Done():
		return ctx.Err()
	}
}
