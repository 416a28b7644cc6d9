// Package doctor checks what a worker needs: that it can reach NATS, MongoDB, KMS and
// Mesh and use them as configured, and that nothing there is out of order. It changes
// nothing: it makes an empty write to MongoDB, and sends messages that NATS refuses.
package doctor

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// Status is the outcome of a check.
type Status string

const (
	OK Status = "ok"
	// Warning: a worker can work, but somebody should look.
	Warning Status = "warning"
	// Failed: a worker can't work, or the check could not find out.
	Failed Status = "failed"
)

// Result is the outcome of one check. Nothing in it is a secret.
type Result struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	Detail string `json:"detail"`
	// Do says what to do about it; empty when all is well.
	Do string `json:"do,omitempty"`
}

// Options of Run.
type Options struct {
	// Timeout bounds each check.
	Timeout time.Duration
	// Now is the clock (time.Now).
	Now func() time.Time
}

type doctor struct {
	cfg      config.Config
	subjects events.Subjects
	environ  []string
	now      func() time.Time
	nats     lazy[*natsLink]
	mongo    lazy[*store.Store]

	mu       sync.Mutex
	readings map[string]reading
}

type check struct {
	name string
	run  func(context.Context) Result
}

// Run makes all checks concurrently, each within the timeout, and returns their results
// in a fixed order.
func Run(ctx context.Context, cfg config.Config, o Options) []Result {
	d := &doctor{cfg: cfg, subjects: cfg.NATS.Subjects(), environ: os.Environ(), now: o.Now, readings: map[string]reading{}}
	if d.now == nil {
		d.now = time.Now
	}
	d.nats.open = d.connectNATS
	d.mongo.open = func(ctx context.Context) (*store.Store, error) { return worker.OpenStore(ctx, cfg.MongoDB) }
	defer d.close()

	checks := []check{
		{"memory", d.memory},
		{"credentials", d.credentials},
		{"nats", d.natsServer},
		{"nats tls", d.withNATS(d.natsTLS)},
		{"nats jetstream", d.withNATS(d.jetStream)},
		{"nats streams", d.withNATS(d.streams)},
		{"nats consumers", d.withNATS(d.consumers)},
		{"nats permissions", d.permissions},
		{"nats inboxes", d.withNATS(d.inboxes)},
		{"mongodb", d.mongoServer},
		{"mongodb tls", d.withMongoDB(d.mongoTLS)},
		{"installation", d.withNATS(d.installation)},
		{"mongodb writes", d.withMongoDB(d.mongoWrites)},
		{"mongodb indexes", d.withMongoDB(d.indexes)},
		{"kms", d.kms},
		{"kms data keys", d.withMongoDB(d.dataKeys)},
		{"mesh", d.mesh},
		{"messages that come back", d.withNATS(d.comeBack)},
		{"dead letters", d.withNATS(d.deadLetters)},
		{"answers to recover", d.withNATS(d.recovery)},
		{"overdue grants", d.withMongoDB(d.overdue)},
	}
	results := make([]Result, len(checks)+len(clockNames))
	var all sync.WaitGroup
	for i, c := range checks {
		all.Go(func() {
			results[i] = within(ctx, o.Timeout, c.run)
			results[i].Check = c.name
		})
	}
	all.Wait()
	for i, name := range clockNames {
		results[len(checks)+i] = d.clock(name)
	}
	return results
}

// graceful is how long a check may still take, after its timeout, to report itself.
const graceful = time.Second

// within runs a check and abandons it soon after the timeout.
func within(ctx context.Context, timeout time.Duration, run func(context.Context) Result) Result {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	done := make(chan Result, 1)
	go func() { done <- run(bounded) }()
	select {
	case r := <-done:
		return r
	case <-bounded.Done():
	}
	select {
	case r := <-done:
		return r
	case <-time.After(graceful):
		return failed("see whether the service is overloaded, or a firewall swallows packets; --timeout waits longer", "no answer within %v", timeout)
	}
}

func ok(format string, args ...any) Result {
	return Result{Status: OK, Detail: fmt.Sprintf(format, args...)}
}

func warning(do, format string, args ...any) Result {
	return Result{Status: Warning, Detail: fmt.Sprintf(format, args...), Do: do}
}

func failed(do, format string, args ...any) Result {
	return Result{Status: Failed, Detail: fmt.Sprintf(format, args...), Do: do}
}

// lazy holds a value that is opened when it is first needed.
type lazy[T any] struct {
	open  func(context.Context) (T, error)
	once  sync.Once
	value T
	err   error
}

func (l *lazy[T]) get(ctx context.Context) (T, error) {
	l.once.Do(func() { l.value, l.err = l.open(ctx) })
	return l.value, l.err
}

// needs returns a check that needs a value. Its result is missing if that can't be opened.
func needs[T any](l *lazy[T], missing func() Result, run func(context.Context, T) Result) func(context.Context) Result {
	return func(ctx context.Context) Result {
		value, err := l.get(ctx)
		if err != nil {
			return missing()
		}
		return run(ctx, value)
	}
}

// close closes the connections. Checks that timed out may still use them.
func (d *doctor) close() {
	if link, err := d.nats.get(context.Background()); err == nil {
		link.nc.Close()
	}
	if db, err := d.mongo.get(context.Background()); err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), graceful)
		defer cancel()
		_ = db.Close(ctx) // the process ends anyway
	}
}
