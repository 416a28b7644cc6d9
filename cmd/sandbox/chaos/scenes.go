package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/kmssim"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/pause"
)

// scene is something that goes wrong for a while. Its end repairs everything, though its
// effects may last.
type scene struct {
	name              string
	play              func(*run, context.Context) error
	single, clustered bool // for a single NATS server only; for a cluster only
	silent            bool // workers may be unable to publish events
}

var scenes = []scene{
	{name: "worker killed", play: (*run).killWorker, silent: true},
	{name: "all workers killed", play: (*run).killAll, silent: true},
	{name: "worker stopped", play: (*run).stopWorker, silent: true},
	{name: "database cut off", play: (*run).cutDatabase, silent: true},
	{name: "database restarted", play: (*run).restartDatabase, silent: true},
	{name: "database cut off and worker killed", play: (*run).cutAndKill, silent: true},
	{name: "broker restarted", play: (*run).restartBroker, single: true, silent: true},
	{name: "broker wiped", play: (*run).wipeBroker, single: true, silent: true},
	{name: "broker's disk full", play: (*run).fillDisk, single: true, silent: true},
	{name: "broker node killed", play: (*run).killNode, clustered: true, silent: true},
	{name: "workers suspended", play: (*run).suspendWorkers, silent: true},
	{name: "broker's leaders step down", play: (*run).stepDown, clustered: true, silent: true},
	{name: "broker refuses credentials", play: (*run).refuseCredentials, silent: true},
	{name: "answers lost after rotation", play: wave(0.3, meshsim.Drop(), meshsim.Cut())},
	{name: "answers too late", play: wave(0.2, meshsim.Hang(), meshsim.Delay(time.Second, 4*time.Second).AfterWork())},
	{name: "calls refused before rotation", play: wave(0.5, meshsim.HTTPStatus(503), meshsim.Reset(), meshsim.Envelope("serverFailure"), meshsim.Envelope("locked"))},
	{name: "too many requests", play: wave(0.5, meshsim.HTTPStatus(429).WithRetryAfter(time.Second), meshsim.Envelope("tooManyRequest"))},
	{name: "one institution down", play: (*run).institutionDown},
	{name: "institutions speak dialects", play: (*run).speakDialects},
	{name: "users leave", play: (*run).usersLeave},
	{name: "everybody is refused", play: (*run).refuseEverybody},
	{name: "HTTP/2 streams reset", play: (*run).resetStreams},
	{name: "junk on every subject", play: (*run).publishJunk},
	{name: "a page of stuck grants", play: (*run).fillPage},
	{name: "KMS away", play: faulty(ofKMS, always(kmssim.Disconnect), always(kmssim.ServiceUnavailable), hanging)},
	{name: "KMS refuses", play: faulty(ofKMS, always(kmssim.AccessDenied))},
	{name: "STS away", play: faulty(ofSTS, always(kmssim.Disconnect), always(kmssim.Internal), hanging)},
	{name: "STS refuses", play: faulty(ofSTS, always(kmssim.IDPCommunication), always(kmssim.ExpiredToken), always(kmssim.InvalidToken))},
	{name: "one institution hangs", play: sick(meshsim.Hang())},
	{name: "one institution suspended", play: sick(meshsim.HTTPStatus(502))},
	{name: "one institution limits the rate", play: (*run).limitRate},
}

func checkNames(names []string) error {
	for _, name := range names {
		if !slices.ContainsFunc(scenes, func(s scene) bool { return s.name == name }) {
			return fmt.Errorf("chaos: no scene is called %q", name)
		}
	}
	return nil
}

// play plays scenes one by one until the time is over, or each once if none is given.
func (r *run) play(ctx context.Context) error {
	pool := slices.DeleteFunc(slices.Clone(scenes), func(s scene) bool {
		return s.single && r.Cluster || s.clustered && !r.Cluster || len(r.Only) > 0 && !slices.Contains(r.Only, s.name)
	})
	if len(pool) == 0 {
		return errors.New("chaos: none of these scenes can be played on such a broker")
	}
	end := time.Now().Add(r.Duration)
	// Each scene once, in an order that the seed decides, before any comes again.
	for rounds := 0; r.Duration == 0 && rounds == 0 || time.Now().Before(end); rounds++ {
		for _, i := range r.rng.Perm(len(pool)) {
			if r.Duration > 0 && !time.Now().Before(end) {
				break
			}
			if err := r.playOne(ctx, pool[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *run) playOne(ctx context.Context, s scene) error {
	r.say("%s", s.name)
	r.timeline.begin(s.name, s.silent)
	err := s.play(r, ctx)
	r.timeline.end()
	if err != nil {
		return fmt.Errorf("scene %q: %w", s.name, err)
	}
	return r.pause(ctx, 500*time.Millisecond, 2*time.Second)
}

func (r *run) pause(ctx context.Context, low, high time.Duration) error {
	return pauseBetween(ctx, r.rng, low, high)
}

func pauseBetween(ctx context.Context, rng *rand.Rand, low, high time.Duration) error {
	return pause.For(ctx, low+time.Duration(rng.Int64N(int64(high-low))))
}

var lifecycle = events.Subjects{}.LifecycleStream()
