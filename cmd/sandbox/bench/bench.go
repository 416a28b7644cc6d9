// Package bench measures workers against the bare engines, on the same servers and in the
// same run, so that its ratios hold on other machines too.
package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/bench"
)

// Options of a run. All sizes are required.
type Options struct {
	Exe                 string // the program whose "worker" command runs one worker
	NATSURL, MongoDBURI string // outside servers, in place of embedded ones
	SQLite              bool   // keep the embedded database's data in SQLite even where PostgreSQL is installed
	Rounds              int    // of what is measured several times
	// Users is the backlog of connects of a round, and of users requested once; Warm users
	// are requested again and again for Duration, by Callers at once.
	Users, Warm, Callers int
	Duration             time.Duration
	Longest              time.Duration // a backlog that would take longer is smaller; 0: no bound
	Refreshes            int           // the backlog of a round of refreshes
	Sealed               int           // token sets sealed while calls to KMS are counted
	// Few and Many are numbers of pending grants at which memory and CPU time are compared,
	// by Sample refreshes in each round.
	Few, Many, Sample int
	DueRate           float64 // how many grants come due in a second
	DueFor            time.Duration
	// Workers are the numbers of worker processes that share a backlog of Shared connects
	// and as many refreshes; the others are compared to the first.
	Workers []int
	Shared  int
	// Burst grants come due within BurstFor, for a worker and for a home-made service whose
	// cron runs each Cron. Killed are refreshed while a process is killed.
	Burst, Killed  int
	BurstFor, Cron time.Duration
	// Partitions are the numbers of partitions of an installation whose Mesh takes Latency to answer, and whose workers, as
	// many as the most of Workers, make Concurrency calls at once each.
	Partitions  []int
	Concurrency int
	Latency     time.Duration
	Scheduled   int      // grants whose schedules are lost and made again
	Only        []string // the measures to take, if not empty
	Progress    io.Writer
}

// small is for databases that read whole collections where MongoDB uses an index.
func (o Options) small() Options {
	o.Users, o.Refreshes, o.Shared = min(o.Users, 500), min(o.Refreshes, 500), min(o.Shared, 300)
	o.Few, o.Many, o.Sample = min(o.Few, 100), min(o.Many, 2000), min(o.Sample, 100)
	o.DueFor = min(o.DueFor, 5*time.Second)
	o.Burst, o.Killed = min(o.Burst, 200), min(o.Killed, 100)
	return o
}

type Report struct {
	At       time.Time `json:"at"`
	Cores    int       `json:"cores"`
	System   string    `json:"system"`
	NATS     string    `json:"nats"`
	Database string    `json:"database"`
	Rows     []Row     `json:"rows"`
}

type run struct {
	Options
	*servers
	begun    time.Time
	name     string // part of the name of everything that the run makes
	users    int    // number of the last one
	log      *zap.Logger
	capacity float64        // refreshes a second of one worker, by a backlog
	figures  []bench.Figure // of [bench.Run], once it has run
}

type measure struct {
	name string
	take func(*run, context.Context) ([]Row, error)
}

// measures in the order in which they are taken.
var measures = []measure{
	{"requests", (*run).requests},
	{"connects", (*run).connects},
	{"refreshes", onSite("refreshes", (*site).refreshes)},
	{"lateness", onSite("lateness", (*site).lateness)},
	{"keys", onSite("keys", (*site).keys)},
	{"workers", (*run).sharing},
	{"writes", onMemory("writes", (*site).writes)},
	{"pending", onSite("pending", (*site).pending)},
	{"homemade", (*run).homemade},
}

// byName are measures that are taken only by name: their figures stand on other pages.
var byName = []measure{
	{"costs", onMemory("costs", (*site).costs, costsSettings...)},
	{"installation", (*run).installation},
	{"reconciliation", onMemory("reconciliation", (*site).reconciliation, reconciliationSettings...)},
}

func onSite(name string, take func(*site, context.Context) ([]Row, error)) func(*run, context.Context) ([]Row, error) {
	return func(r *run, ctx context.Context) (rows []Row, err error) {
		s, err := r.site(ctx, name)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, s.close(ctx)) }()
		return take(s, ctx)
	}
}

func Names() []string {
	var names []string
	for _, m := range slices.Concat(measures, byName) {
		names = append(names, m.name)
	}
	return names
}

// Run measures. With an error the report holds what could be measured. Run removes all that
// it made.
func Run(ctx context.Context, o Options) (report Report, err error) {
	for _, name := range o.Only {
		if !slices.Contains(Names(), name) {
			return report, fmt.Errorf("there is no measure %q; there are %v", name, Names())
		}
	}
	r := &run{Options: o, begun: time.Now(), name: fmt.Sprintf("%d-%d", os.Getpid(), time.Now().Unix())}
	r.say("starting the engines")
	if r.servers, err = startServers(ctx, o); err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, r.servers.stop()) }()
	if r.log, err = r.servers.logger(); err != nil {
		return report, err
	}
	if r.lite {
		r.say("no PostgreSQL: the database is FerretDB on SQLite, which reads whole collections; sizes are smaller")
		r.Options = o.small()
	}
	report = Report{At: r.begun.UTC().Truncate(time.Second), Cores: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, NATS: r.nats, Database: r.database}
	taken := measures
	if len(o.Only) > 0 {
		taken = slices.DeleteFunc(slices.Concat(measures, byName), func(m measure) bool { return !slices.Contains(o.Only, m.name) })
	}
	for _, m := range taken {
		rows, measureErr := m.take(r, ctx)
		for _, row := range rows {
			row.judge()
			r.say("%s", row)
			report.Rows = append(report.Rows, row)
		}
		if ctx.Err() != nil {
			return report, errors.Join(err, ctx.Err())
		}
		if measureErr != nil {
			r.say("%s: %v", m.name, measureErr)
			err = errors.Join(err, fmt.Errorf("measuring %s: %w", m.name, measureErr))
		}
	}
	return report, err
}

// apart returns the run on other servers, which must be stopped: a Mesh without the calls of other measures, and
// another database if mongoDBURI names one.
func (r *run) apart(ctx context.Context, mongoDBURI string) (_ *run, err error) {
	at := *r
	at.MongoDBURI = cmp.Or(mongoDBURI, r.MongoDBURI)
	at.servers, err = startServers(ctx, at.Options)
	return &at, err
}

func (r *run) say(format string, args ...any) {
	if r.Progress != nil {
		fmt.Fprintf(r.Progress, "%7.1fs  %s\n", time.Since(r.begun).Seconds(), fmt.Sprintf(format, args...))
	}
}

// sizeText writes a size, and the one that was wanted if that is larger.
func sizeText(n, wanted int) string {
	if n < wanted {
		return fmt.Sprintf("%d (%d would take this machine too long)", n, wanted)
	}
	return fmt.Sprint(n)
}

func fits(n int, rate float64, within time.Duration) int {
	if within > 0 {
		n = min(n, max(int(rate*within.Seconds()), 1))
	}
	return n
}

// measure measures connects and requests as latchkey bench does, once.
func (r *run) measure(ctx context.Context) (connects, cold, warm bench.Figure, err error) {
	if r.figures == nil {
		cfg, err := r.stack.Config("LATCHKEY_WORKER_LOCK_MEMORY=off", "LATCHKEY_RECONCILE_INTERVAL=12h")
		if err != nil {
			return connects, cold, warm, err
		}
		r.figures, err = bench.Run(ctx, cfg, bench.Options{
			Name: r.name, Users: r.Users, Warm: r.Warm, Longest: r.Longest, Callers: r.Callers, Duration: r.Duration, Rounds: r.Rounds, SameReads: true,
			Prepare: r.stack.Ready, Log: r.log, Progress: func(what string) { r.say("%s", what) },
		})
		if err != nil {
			return connects, cold, warm, err
		}
	}
	return r.figures[0], r.figures[1], r.figures[2], nil
}

func rowOf(f bench.Figure, figure, method string, target Target) Row {
	return Row{Figure: figure, Unit: f.Unit, Values: f.Latchkey, Baseline: f.Bare, Against: f.Against, Method: method, Target: &target}
}

func (r *run) requests(ctx context.Context) ([]Row, error) {
	_, cold, warm, err := r.measure(ctx)
	if err != nil {
		return nil, err
	}
	return []Row{
		rowOf(warm, "current tokens, warm",
			fmt.Sprintf("%d users asked for again and again by %d callers for %s; every hand-out is in the audit log before it is answered", warm.Users, r.Callers, r.Duration), AtLeast(0.7)),
		{
			Figure: "current tokens, warm, 99th percentile", Unit: "ms", Values: warm.LatchkeyP99, Baseline: warm.BareP99, Against: warm.Against,
			Method: "of the same requests", Target: new(AtMost(2)),
		},
		rowOf(cold, "current tokens, cold", fmt.Sprintf("%d users a round, each asked for once by %d callers", cold.Users, r.Callers), AtLeast(0.8)),
	}, nil
}

func (r *run) connects(ctx context.Context) ([]Row, error) {
	f, _, _, err := r.measure(ctx)
	if err != nil {
		return nil, err
	}
	return []Row{rowOf(f, f.Name,
		fmt.Sprintf("%s published as fast as NATS takes them; from the first until the last token.stored", sizeText(f.Users, r.Users)), AtLeast(0.8))}, nil
}
