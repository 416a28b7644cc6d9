package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// maxStore is the broker's disk; the scene "disk full" fills it.
const maxStore = 256 << 20

// natsUsers sets NATS's users: the workers, this process, and one of the system account.
func (r *run) natsUsers(o *server.Options) {
	system := server.NewAccount(server.DEFAULT_SYSTEM_ACCOUNT)
	o.Accounts, o.SystemAccount = []*server.Account{system}, system.Name
	password := workerPassword
	if r.wrongLogin {
		password = "another-password"
	}
	o.Users = []*server.User{
		{Username: workerUser, Password: password},
		{Username: chaosUser, Password: chaosPassword},
		{Username: systemUser, Password: chaosPassword, Account: system},
	}
}

func (r *run) restartBroker(ctx context.Context) error {
	return r.restart(ctx, r.stack.NATS, 200*time.Millisecond, 3*time.Second)
}

func (r *run) restart(ctx context.Context, engine interface {
	Stop()
	Restart() error
}, low, high time.Duration,
) error {
	engine.Stop()
	err := r.pause(ctx, low, high)
	return errors.Join(err, engine.Restart())
}

// wipeBroker deletes everything that NATS holds while the workers are down, after it has
// received all events.
func (r *run) wipeBroker(ctx context.Context) error {
	if err := until(ctx, settleWithin, "recoveries applied before the wipe", func() error {
		if n, err := r.recoveries(ctx); err != nil || n > 0 {
			return errors.Join(err, fmt.Errorf("%d left", n))
		}
		return nil
	}); err != nil {
		return err
	}
	if err := until(ctx, settleWithin, "junk parked before the wipe", func() error { return r.allParked(ctx) }); err != nil {
		return err
	}
	if err := r.stopWorkers(); err != nil {
		return err
	}
	if err := until(ctx, settleWithin, "events heard before the wipe", func() error { return r.listener.drain(ctx) }); err != nil {
		return err
	}
	r.listener.consumer = nil // the stream is another now
	r.junk.next = 1
	err := r.stack.NATS.Wipe()
	return errors.Join(err, r.stack.NATS.Restart(), r.eachWorker((*process).start))
}

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
	// Small messages fill the last gap.
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
	return r.restart(ctx, r.cluster.Node(r.rng.IntN(3)), 500*time.Millisecond, 5*time.Second)
}

// refuseCredentials changes the workers' password at NATS, as in a rotation that reaches the
// servers first. Workers are disconnected, and refused more often than a client library
// bears by default.
func (r *run) refuseCredentials(ctx context.Context) error {
	if err := r.reloadNATS(true); err != nil {
		return err
	}
	err := r.pause(ctx, 10*time.Second, 12*time.Second)
	return errors.Join(err, r.reloadNATS(false))
}

func (r *run) reloadNATS(refused bool) error {
	r.wrongLogin = refused
	if r.cluster != nil {
		return r.cluster.Reload()
	}
	return r.stack.NATS.Reload()
}

// stepDown makes the leaders of all streams and consumers, and that of the cluster, step down
// again and again. Some requests get no answer then.
func (r *run) stepDown(ctx context.Context) error {
	system, err := nats.Connect(r.cluster.URL(), nats.UserInfo(systemUser, chaosPassword))
	if err != nil {
		return fmt.Errorf("connecting to NATS's system account: %w", err)
	}
	defer system.Close()
	end := time.Now().Add(6*time.Second + time.Duration(r.rng.Int64N(int64(4*time.Second))))
	// The number of turns depends on the machine, and must not change the seed's sequence.
	rng := rand.New(rand.NewPCG(r.rng.Uint64(), 1))
	for time.Now().Before(end) {
		// Errors say that there is no leader now, which is intended.
		for name := range r.js.StreamNames(ctx).Name() {
			_ = r.nc.Publish("$JS.API.STREAM.LEADER.STEPDOWN."+name, nil)
			if stream, err := r.js.Stream(ctx, name); err == nil {
				for consumer := range stream.ConsumerNames(ctx).Name() {
					_ = r.nc.Publish("$JS.API.CONSUMER.LEADER.STEPDOWN."+name+"."+consumer, nil)
				}
			}
		}
		_ = system.Publish("$JS.API.META.LEADER.STEPDOWN", nil)
		if err := pauseBetween(ctx, rng, 200*time.Millisecond, 1200*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
