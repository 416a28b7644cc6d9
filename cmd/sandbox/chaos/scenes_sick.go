package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
)

// Readers of a scene with a sick broker: watchers ask for grants of the others,
// the crowd for those of the sick one, with more life left than any token has,
// so that each request wants a refresh.
const (
	watcherCount = 4
	crowdCount   = 3 * tokensConcurrency
	crowdPause   = 100 * time.Millisecond
	quietFor     = 3 * time.Second
)

// A request for a healthy grant has waited for the sick broker if it took
// waitedTimes as long as its like without one, and waitedLeast besides, which is
// a quarter of what a request may wait. On a busy machine requests are slow, but
// not by as much.
const (
	waitedTimes = 20
	waitedLeast = tokensTimeout / 4
)

// asked is a request for a healthy grant.
type asked struct {
	at   time.Time
	took time.Duration
	err  error
}

// sick has all calls for one broker go wrong under a crowd of readers, long
// enough for access tokens to end, while others ask for grants of the other
// brokers.
func sick(action meshsim.Action) func(*run, context.Context) error {
	return func(r *run, ctx context.Context) error { return r.sicken(ctx, action) }
}

// limitRate has one broker answer that there are too many requests, and when to
// come again: when the access tokens at hand will have ended.
func (r *run) limitRate(ctx context.Context) error {
	after := (r.Lifetime * 6 / 10).Round(time.Second)
	return r.sicken(ctx, meshsim.HTTPStatus(429).WithRetryAfter(after))
}

func (r *run) sicken(ctx context.Context, action meshsim.Action) error {
	broker := r.rng.IntN(len(brokers))
	var healthy, ill []string
	for i := range r.Grants {
		if i%len(brokers) == broker {
			ill = append(ill, user(i))
		} else {
			healthy = append(healthy, user(i))
		}
	}
	if err := r.calm(ctx, healthy); err != nil {
		return err
	}
	w := r.watch(ctx, healthy)
	err := r.pause(ctx, quietFor, quietFor+time.Second)
	quiet := w.next()

	leave := r.crowd(ctx, ill)
	fault := meshsim.Fault{Operation: meshsim.OpRefresh, BrokerType: brokers[broker], Action: action}
	err = errors.Join(err, r.withFaults(ctx, []meshsim.Fault{fault}, r.Lifetime/2+2*time.Second, r.Lifetime/2+6*time.Second))
	during := w.stop()
	leave()
	if err != nil {
		return err
	}
	return r.compare(quiet, during)
}

// compare finds the requests that waited for the sick broker, or were refused
// because of it.
func (r *run) compare(quiet, during []asked) error {
	if len(quiet) == 0 || len(during) == 0 {
		return errors.New("nobody asked for healthy grants")
	}
	limit := max(waitedLeast, waitedTimes*median(quiet))
	for _, a := range during {
		if a.err != nil || a.took > limit {
			r.waits = append(r.waits, a)
		}
	}
	slowest := slices.MaxFunc(during, func(a, b asked) int { return int(a.took - b.took) })
	r.say("  healthy grants: %d requests, median %s, slowest %s; without the sick broker: median %s; limit %s",
		len(during), median(during).Round(10*time.Microsecond), slowest.took.Round(time.Millisecond), median(quiet).Round(10*time.Microsecond), limit.Round(time.Millisecond))
	return nil
}

func median(all []asked) time.Duration {
	took := make([]time.Duration, len(all))
	for i, a := range all {
		took[i] = a.took
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// calm waits until everybody gets tokens at once, so that what the scenes before
// did is no fault of the sick broker.
func (r *run) calm(ctx context.Context, users []string) error {
	const inARow = 50
	good := 0
	return until(ctx, settleWithin, "quiet before a broker is sick", func() error {
		for good < inARow {
			began := time.Now()
			if err := r.asked.ask(ctx, r, events.TokenRequest{UserID: users[good*len(users)/inARow]}); err != nil || time.Since(began) > waitedLeast/2 {
				good = 0
				return errors.Join(errors.New("a slow answer"), err)
			}
			good++
		}
		return nil
	})
}

// watchers ask for tokens of healthy grants and note how long it takes.
type watchers struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu  sync.Mutex
	all []asked
}

func (r *run) watch(ctx context.Context, users []string) *watchers {
	watching, cancel := context.WithCancel(ctx)
	w := &watchers{cancel: cancel}
	for i := range watcherCount {
		w.wg.Go(func() {
			for n := i; watching.Err() == nil; n += watcherCount {
				began := time.Now()
				err := r.asked.ask(ctx, r, events.TokenRequest{UserID: users[n%len(users)]})
				w.note(asked{at: began, took: time.Since(began), err: err})
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	return w
}

func (w *watchers) note(a asked) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, a)
}

// next returns what was noted, and begins anew.
func (w *watchers) next() []asked {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.all
	w.all = nil
	return all
}

// stop returns what was noted since. Requests that are under way go on, as long
// as they may, and are noted too.
func (w *watchers) stop() []asked {
	w.cancel()
	w.wg.Wait()
	return w.next()
}

// crowd asks for tokens of the sick broker's grants until leave is called.
func (r *run) crowd(ctx context.Context, users []string) (leave func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var turn atomic.Int64
	life := int64(r.Lifetime/time.Second) + 1
	for range crowdCount {
		wg.Go(func() {
			for ctx.Err() == nil {
				// That a sick broker brings no tokens is no figure of interest.
				_, _ = r.asked.latchkey.Tokens(ctx, events.TokenRequest{UserID: users[int(turn.Add(1))%len(users)], MinTTLSeconds: &life})
				select {
				case <-time.After(crowdPause):
				case <-ctx.Done():
				}
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// said is an error for a line of the report.
func (a asked) said() string {
	if a.err != nil {
		return fmt.Sprintf("%v after %s", a.err, a.took.Round(time.Millisecond))
	}
	return "answered after " + a.took.Round(time.Millisecond).String()
}
