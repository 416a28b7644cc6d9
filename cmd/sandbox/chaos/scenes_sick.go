package chaos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
	"github.com/latchkey/latchkey/events/pause"
)

// Readers of a scene with a sick broker: watchers request grants of the others, the crowd
// those of the sick one. The crowd is larger than the number of requests that a worker lets
// wait for one broker.
const (
	watcherCount = 4
	crowdCount   = 3 * tokensConcurrency
	crowdPause   = 100 * time.Millisecond
	quietFor     = 4 * time.Second
)

// A request for a healthy grant waited for the sick broker if it took waitedTimes as long as
// the median of the same requests while no broker was sick, waitedSlowest as long as the
// slowest of them, and waitedLeast. A busy machine slows both alike.
const (
	waitedTimes   = 20
	waitedSlowest = 2
	waitedLeast   = tokensTimeout / 4
)

// timedRequest is how long a request for a healthy grant took, including its repetitions.
type timedRequest struct {
	user string
	at   time.Time
	took time.Duration
	err  error
}

// sick makes all calls for one broker go wrong under a crowd of readers, until access tokens
// have expired, while others request grants of the other brokers. The crowd is there before
// the broker is sick, so that only the sickness differs.
func sick(action meshsim.Action) func(*run, context.Context) error {
	return func(r *run, ctx context.Context) error { return r.sicken(ctx, action) }
}

// limitRate makes one broker answer 429 with a Retry-After beyond the end of the present
// access tokens.
func (r *run) limitRate(ctx context.Context) error {
	after := (r.Lifetime * 6 / 10).Round(time.Second)
	return r.sicken(ctx, meshsim.HTTPStatus(429).WithRetryAfter(after))
}

func (r *run) sicken(ctx context.Context, action meshsim.Action) error {
	broker := r.rng.IntN(len(brokers))
	var healthy, ill []string
	for i := range r.Grants {
		if r.gone[i] {
			continue
		}
		if i%len(brokers) == broker {
			ill = append(ill, user(i))
		} else if len(mannerOf(i).dialects) == 0 { // some manners make a request wait for a refresh of their own
			healthy = append(healthy, user(i))
		}
	}
	leave := r.crowd(ctx, ill)
	defer leave()
	if err := r.calm(ctx, healthy); err != nil {
		return err
	}
	stop := r.watch(ctx, healthy)
	err := r.pause(ctx, quietFor, quietFor+time.Second)
	sick := time.Now()
	fault := meshsim.Fault{Operation: meshsim.OpRefresh, BrokerType: brokers[broker], Action: action}
	least := r.Lifetime * 3 / 4
	err = errors.Join(err, r.withFaults(ctx, []meshsim.Fault{fault}, least, least+4*time.Second, 0))
	var quiet, during []timedRequest
	for _, a := range stop() {
		if a.at.Add(a.took).Before(sick) {
			quiet = append(quiet, a)
		} else {
			during = append(during, a)
		}
	}
	if err != nil {
		return err
	}
	return r.compare(quiet, during)
}

// compare finds the requests that waited for the sick broker, or were refused because of it.
func (r *run) compare(quiet, during []timedRequest) error {
	if len(quiet) == 0 || len(during) == 0 {
		return errors.New("nobody asked for healthy grants")
	}
	median, slowest := times(during)
	quietMedian, quietSlowest := times(quiet)
	limit := max(waitedLeast, waitedTimes*quietMedian, waitedSlowest*quietSlowest)
	for _, a := range during {
		if a.err != nil || a.took > limit {
			r.waits = append(r.waits, a)
		}
	}
	r.say("  healthy grants: %d requests, median %s, slowest %s; while nobody was sick: %d, %s, %s; limit %s",
		len(during), median.Round(10*time.Microsecond), slowest.Round(time.Millisecond),
		len(quiet), quietMedian.Round(10*time.Microsecond), quietSlowest.Round(time.Millisecond), limit.Round(time.Millisecond))
	return nil
}

func times(all []timedRequest) (median, slowest time.Duration) {
	all = slices.SortedFunc(slices.Values(all), func(a, b timedRequest) int { return cmp.Compare(a.took, b.took) })
	return all[len(all)/2].took, all[len(all)-1].took
}

// calm waits until all users get tokens at once, after the effects of earlier scenes.
func (r *run) calm(ctx context.Context, users []string) error {
	const inARow = 50
	good := 0
	return until(ctx, settleWithin, "quiet before a broker is sick", func() error {
		for good < inARow {
			began := time.Now()
			if err := r.readers.ask(ctx, r, r.readers.patient, events.TokenRequest{UserID: users[good*len(users)/inARow]}); err != nil || time.Since(began) > waitedLeast/2 {
				good = 0
				return errors.Join(errors.New("a slow answer"), err)
			}
			good++
		}
		return nil
	})
}

// watch notes how long requests take. stop lets running ones finish.
func (r *run) watch(ctx context.Context, users []string) (stop func() []timedRequest) {
	watching, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all []timedRequest
	for i := range watcherCount {
		wg.Go(func() {
			for n := i; watching.Err() == nil; n += watcherCount {
				began, user := time.Now(), users[n%len(users)]
				err := r.readers.ask(ctx, r, r.readers.patient, events.TokenRequest{UserID: user})
				mu.Lock()
				all = append(all, timedRequest{user: user, at: began, took: time.Since(began), err: err})
				mu.Unlock()
				_ = pause.For(ctx, 20*time.Millisecond) // the loop sees that ctx has ended
			}
		})
	}
	return func() []timedRequest { cancel(); wg.Wait(); return all }
}

// crowd requests tokens of one broker's grants, with more than half of their lifetime left,
// until leave is called.
func (r *run) crowd(ctx context.Context, users []string) (leave func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var turn atomic.Int64
	life := int64(r.Lifetime/time.Second)/2 + 1
	for range crowdCount {
		wg.Go(func() {
			for ctx.Err() == nil {
				// That a sick broker brings no tokens is no figure of interest.
				_, _ = r.readers.once.Tokens(ctx, events.TokenRequest{UserID: users[int(turn.Add(1))%len(users)], MinTTLSeconds: &life})
				_ = pause.For(ctx, crowdPause) // the loop sees that ctx has ended
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

func (a timedRequest) describe() string {
	took := a.took.Round(time.Millisecond)
	refused := (*client.RefusedError)(nil)
	switch {
	case errors.As(a.err, &refused):
		return fmt.Sprintf("%s, %v after %s: %+v", a.user, a.err, took, refused.Unavailable)
	case a.err != nil:
		return fmt.Sprintf("%s, %v after %s", a.user, a.err, took)
	}
	return fmt.Sprintf("%s, answered after %s", a.user, took)
}
