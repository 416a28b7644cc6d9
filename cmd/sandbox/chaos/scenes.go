package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
)

// maxStore is the broker's disk; the scene "disk full" fills it.
const maxStore = 256 << 20

// scene is something that goes wrong for a while. It ends with everything
// repaired, though its effects go on.
type scene struct {
	name string
	play func(*run, context.Context) error
	// single: for a single NATS server only; clustered: for a cluster only.
	single, clustered bool
}

var scenes = []scene{
	{name: "worker killed", play: (*run).killWorker},
	{name: "all workers killed", play: (*run).killAll},
	{name: "worker stopped", play: (*run).stopWorker},
	{name: "database cut off", play: (*run).cutDatabase},
	{name: "database restarted", play: (*run).restartDatabase},
	{name: "database cut off, worker killed", play: (*run).cutAndKill},
	{name: "broker restarted", play: (*run).restartBroker, single: true},
	{name: "broker wiped", play: (*run).wipeBroker, single: true},
	{name: "broker's disk full", play: (*run).fillDisk, single: true},
	{name: "broker node killed", play: (*run).killNode, clustered: true},
	{name: "answers lost after rotation", play: wave(0.3, meshsim.Drop(), meshsim.Cut())},
	{name: "answers too late", play: wave(0.2, meshsim.Hang(), meshsim.Delay(time.Second, 4*time.Second).AfterWork())},
	{name: "calls refused before rotation", play: wave(0.5, meshsim.HTTPStatus(503), meshsim.Reset(), meshsim.Envelope("serverFailure"), meshsim.Envelope("locked"))},
	{name: "too many requests", play: wave(0.5, meshsim.HTTPStatus(429).WithRetryAfter(time.Second), meshsim.Envelope("tooManyRequest"))},
	{name: "one institution down", play: (*run).institutionDown},
}

// play plays scenes one after the other until the time is over.
func (r *run) play(ctx context.Context) error {
	var pool []scene
	for _, s := range scenes {
		if s.single && r.Cluster || s.clustered && !r.Cluster || len(r.Only) > 0 && !slices.Contains(r.Only, s.name) {
			continue
		}
		pool = append(pool, s)
	}
	if len(pool) == 0 {
		return errors.New("chaos: no scene of that name")
	}
	end := time.Now().Add(r.Duration)
	// Each scene once, in an order that the seed decides, before any comes again.
	for order := r.rng.Perm(len(pool)); time.Now().Before(end); order = r.rng.Perm(len(pool)) {
		for _, i := range order {
			if !time.Now().Before(end) {
				break
			}
			r.say("%s", pool[i].name)
			if err := pool[i].play(r, ctx); err != nil {
				return fmt.Errorf("scene %q: %w", pool[i].name, err)
			}
			r.played[pool[i].name]++
			if err := r.pause(ctx, 500*time.Millisecond, 2*time.Second); err != nil {
				return err
			}
		}
	}
	return nil
}

// pause waits for a time between two bounds that the seed decides.
func (r *run) pause(ctx context.Context, low, high time.Duration) error {
	select {
	case <-time.After(low + time.Duration(r.rng.Int64N(int64(high-low)))):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// kill notes the time at which the worker is dead: until then it can receive
// answers.
func (r *run) kill(w *process) {
	w.kill()
	r.kills = append(r.kills, time.Now())
}

func (r *run) killWorker(ctx context.Context) error {
	w := r.workers[r.rng.IntN(len(r.workers))]
	r.kill(w)
	if err := r.pause(ctx, 100*time.Millisecond, 3*time.Second); err != nil {
		return err
	}
	return w.start()
}

func (r *run) killAll(ctx context.Context) error {
	for _, w := range r.workers {
		r.kill(w)
	}
	if err := r.pause(ctx, 100*time.Millisecond, 2*time.Second); err != nil {
		return err
	}
	return r.startAll()
}

func (r *run) startAll() error {
	var err error
	for _, w := range r.workers {
		err = errors.Join(err, w.start())
	}
	return err
}

func (r *run) stopWorker(context.Context) error {
	w := r.workers[r.rng.IntN(len(r.workers))]
	return errors.Join(w.terminate(), w.start())
}

func (r *run) cutDatabase(ctx context.Context) error {
	r.stack.MongoDB.Proxy().Cut()
	defer r.stack.MongoDB.Proxy().Restore()
	return r.pause(ctx, 500*time.Millisecond, 6*time.Second)
}

func (r *run) restartDatabase(ctx context.Context) error {
	r.stack.MongoDB.Stop()
	err := r.pause(ctx, 200*time.Millisecond, 3*time.Second)
	return errors.Join(err, r.stack.MongoDB.Restart())
}

// cutAndKill kills a worker that may hold answers which only the recovery
// stream has. It waits until they are there: before that the worker is their
// only holder.
func (r *run) cutAndKill(ctx context.Context) error {
	r.stack.MongoDB.Proxy().Cut()
	defer r.stack.MongoDB.Proxy().Restore()
	if err := r.pause(ctx, 5*time.Second, 7*time.Second); err != nil {
		return err
	}
	return r.killWorker(ctx)
}

func (r *run) restartBroker(ctx context.Context) error {
	r.stack.NATS.Stop()
	err := r.pause(ctx, 200*time.Millisecond, 3*time.Second)
	return errors.Join(err, r.stack.NATS.Restart())
}

// wipeBroker loses everything that NATS holds while the workers are down. What
// had been published by then is taken note of first.
func (r *run) wipeBroker(ctx context.Context) error {
	if err := until(ctx, settleWithin, "recoveries applied before the wipe", func() error {
		if n, err := r.recoveries(ctx); err != nil || n > 0 {
			return errors.Join(err, fmt.Errorf("%d left", n))
		}
		return nil
	}); err != nil {
		return err
	}
	// Nor may a message that a killed worker held still have to come again: what
	// it tells would be wiped with it.
	if err := until(ctx, settleWithin, "messages of killed workers handled before the wipe", func() error {
		if n := len(r.kills); n > 0 && time.Since(r.kills[n-1]) < 3*ackWait {
			return errors.New("a worker was killed just now")
		}
		return nil
	}); err != nil {
		return err
	}
	if err := r.stopWorkers(); err != nil {
		return err
	}
	if err := until(ctx, settleWithin, "events heard before the wipe", func() error { return r.heard.drain(ctx) }); err != nil {
		return err
	}
	r.heard.forget()
	err := r.stack.NATS.Wipe()
	return errors.Join(err, r.stack.NATS.Restart(), r.startAll())
}

// fillDisk fills the broker's store with something else.
func (r *run) fillDisk(ctx context.Context) error {
	junk, err := r.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "JUNK", Subjects: []string{"junk"}})
	if err != nil {
		return fmt.Errorf("making a stream to fill: %w", err)
	}
	body := make([]byte, 900<<10)
	full := false
	for range 2 * maxStore / len(body) {
		if _, err := r.js.Publish(ctx, "junk", body); err != nil {
			full = true
			break
		}
	}
	// The last gap is filled with small ones.
	for range 1000 {
		if _, err := r.js.Publish(ctx, "junk", body[:4<<10]); err != nil {
			break
		}
	}
	if !full {
		return errors.New("the broker's disk did not fill")
	}
	err = r.pause(ctx, time.Second, 4*time.Second)
	return errors.Join(err, junk.Purge(ctx), r.js.DeleteStream(ctx, "JUNK"))
}

func (r *run) killNode(ctx context.Context) error {
	node := r.cluster.Node(r.rng.IntN(3))
	node.Stop()
	err := r.pause(ctx, 500*time.Millisecond, 5*time.Second)
	return errors.Join(err, node.Restart())
}

// wave has a share of the calls to Mesh go wrong for a while.
func wave(share float64, actions ...meshsim.Action) func(*run, context.Context) error {
	return func(r *run, ctx context.Context) error {
		var faults []meshsim.Fault
		for _, a := range actions {
			faults = append(faults, meshsim.Fault{Operation: meshsim.OpRefresh, Probability: share / float64(len(actions)), Action: a})
		}
		return r.withFaults(ctx, faults, time.Second, 5*time.Second)
	}
}

func (r *run) institutionDown(ctx context.Context) error {
	fault := meshsim.Fault{Operation: meshsim.OpRefresh, BrokerType: brokers[r.rng.IntN(len(brokers))], Action: meshsim.HTTPStatus(502)}
	return r.withFaults(ctx, []meshsim.Fault{fault}, 2*time.Second, 8*time.Second)
}

func (r *run) withFaults(ctx context.Context, faults []meshsim.Fault, low, high time.Duration) error {
	ids, err := r.stack.Mesh.Inject(faults...)
	if err != nil {
		return fmt.Errorf("injecting faults: %w", err)
	}
	err = r.pause(ctx, low, high)
	r.stack.Mesh.ClearFaults(ids...)
	return err
}

var lifecycle = events.Subjects{}.LifecycleStream()
