package bench

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/latchkey/latchkey/cmd/sandbox/bench/homemade"
	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/events/secret"
)

// HomemadeCommand is the command of this program that runs the home-made service, with what HomemadeOptions leaves out
// as flags.
const HomemadeCommand = "homemade"

// HomemadeOptions are those that are the same for every service.
func HomemadeOptions() homemade.Options {
	return homemade.Options{
		Prefix: "homemade", Key: sha256.Sum256([]byte("key of the home-made service")), Calls: 32, // as refresh.concurrency
		ClientID: stack.ClientID, ClientSecret: secret.New(stack.ClientSecret),
	}
}

const againstHomemade = "a home-made service in a process of its own, without audit log and events: a SELECT a read in PostgreSQL without fsync, AES-GCM with one key, a cron with row locks"

// rival is a home-made service with a database of its own.
type rival struct {
	*run
	options homemade.Options
	service *homemade.Service // to fill the database with
	pool    *pgxpool.Pool     // to look into it
	process *process
	stops   []func() error
}

// rival starts a home-made service. It must be closed. Without PostgreSQL the error is [engines.ErrNoPostgres].
func (r *run) rival(ctx context.Context) (v *rival, err error) {
	v = &rival{run: r, options: HomemadeOptions()}
	defer func() {
		if err != nil {
			err = errors.Join(err, v.close())
		}
	}()
	dir, err := os.MkdirTemp("", "latchkey-bench-homemade-") // another user may have to own it
	if err != nil {
		return v, fmt.Errorf("making a folder: %w", err)
	}
	v.stops = append(v.stops, func() error { return os.RemoveAll(dir) })
	postgres, err := engines.StartPostgres(ctx, dir)
	if err != nil {
		return v, err
	}
	v.stops = append(v.stops, func() error { postgres.Stop(); return nil })
	cfg, err := r.stack.Config()
	if err != nil {
		return v, err
	}
	v.options.PostgresURL, v.options.NATSURL, v.options.MeshURL = postgres.URL(), cfg.NATS.URL, r.stack.MeshURL
	if v.service, err = homemade.Open(ctx, v.options); err != nil {
		return v, err
	}
	v.stops = append(v.stops, func() error { v.service.Close(); return nil })
	if v.pool, err = pgxpool.New(ctx, v.options.PostgresURL); err != nil {
		return v, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	v.stops = append(v.stops, func() error { v.pool.Close(); return nil })
	return v, nil
}

func (v *rival) close() (failed error) {
	if v.process != nil {
		failed = v.process.stop()
	}
	for _, stop := range slices.Backward(v.stops) {
		failed = errors.Join(failed, stop())
	}
	return failed
}

// start starts the service's process, of which none runs.
func (v *rival) start(ctx context.Context, s *site, every time.Duration) (err error) {
	v.process, err = startProcess(ctx, v.Exe, filepath.Join(v.dir, "homemade.log"), os.Environ(), func() bool {
		_, err := s.nc.Request(v.options.Prefix+".echo", nil, time.Second)
		return err == nil
	}, HomemadeCommand, "--postgres", v.options.PostgresURL, "--nats", v.options.NATSURL, "--mesh", v.options.MeshURL, "--every", every.String())
	return err
}

func (v *rival) add(ctx context.Context, grants []testGrant) error {
	tokens := make([]homemade.Token, len(grants))
	for i, g := range grants {
		tokens[i] = homemade.Token{
			User: g.UserID, Broker: g.BrokerType, Account: g.Accounts[0].ID, Access: g.tokens.Accounts[0].AccessToken, Refresh: g.tokens.RefreshToken,
			ExpiresAt: *g.Access.ExpiresAt, DueAt: g.Due.At,
		}
	}
	return v.service.Add(ctx, tokens)
}

// homemade compares a worker with the service that a company would make at home. To look at Mesh's ledger is to copy it
// while Mesh waits, so it must be short.
func (r *run) homemade(ctx context.Context) (rows []Row, err error) {
	r, err = r.apart(ctx, "")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.servers.stop()) }()
	v, err := r.rival(ctx)
	if errors.Is(err, engines.ErrNoPostgres) {
		return []Row{{Figure: "home-made service", Method: "not measured: " + engines.ErrNoPostgres.Error()}}, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, v.close()) }()
	for _, part := range []struct {
		name     string
		settings []string
		take     func(*site, context.Context, *rival) ([]Row, error)
	}{
		// Its documents stay in memory, since FerretDB takes several times as long as MongoDB to read one.
		{"reads", []string{"LATCHKEY_TOKENS_CACHE_AGE=1h"}, (*site).readsAndBurst},
		// Short, since all of it is waited for after a kill.
		{"kill", []string{
			"LATCHKEY_MESH_TIMEOUT=2s", "LATCHKEY_MONGODB_TIMEOUT=5s", "LATCHKEY_KMS_TIMEOUT=1s", "LATCHKEY_WORKER_CLOCK_SKEW=1s", "LATCHKEY_REFRESH_LEASE=10s", "LATCHKEY_MESSAGES_ACK_WAIT=5s",
		}, (*site).kill},
	} {
		more, err := func() (rows []Row, err error) {
			s, err := r.site(ctx, "homemade-"+part.name, part.settings...)
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, s.close(ctx)) }()
			return part.take(s, ctx, v)
		}()
		if err != nil {
			return rows, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}
