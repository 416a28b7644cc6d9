package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/bench"
	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/config"
)

const broker = "bench"

// lifetime of an access token: none comes due again during a measurement.
const lifetime = 12 * time.Hour

type servers struct {
	stack          *stack.Stack
	postgres       *engines.Postgres
	dir            string
	nats, database string // name and version
	lite           bool   // the database is for small sizes
	stops          []func() error
}

func startServers(ctx context.Context, o Options) (s *servers, err error) {
	s = &servers{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	if s.dir, err = s.folder("latchkey-bench-"); err != nil {
		return s, err
	}
	options := stack.Options{Dir: s.dir, NATSURL: o.NATSURL, MongoDBURI: o.MongoDBURI, Institutions: map[string]meshsim.Institution{
		// A refresh token that is presented again is counted, and does no harm.
		broker: {AccessLifetime: lifetime, RefreshLifetime: 90 * 24 * time.Hour, Grace: lifetime},
	}}
	s.lite = o.MongoDBURI == ""
	if s.lite && !o.SQLite {
		// Another user may have to own this folder.
		data, err := s.folder("latchkey-bench-postgres-")
		if err != nil {
			return s, err
		}
		s.postgres, err = engines.StartPostgres(ctx, data)
		if err != nil && !errors.Is(err, engines.ErrNoPostgres) {
			return s, err
		}
		if err == nil {
			s.stops = append(s.stops, func() error { s.postgres.Stop(); return nil })
			options.PostgresURL, s.lite = s.postgres.URL(), false
		}
	}
	if s.stack, err = stack.Start(options); err != nil {
		return s, err
	}
	s.stops = append(s.stops, func() error { s.stack.Stop(); return nil })
	cfg, err := s.stack.Config()
	if err != nil {
		return s, err
	}
	return s, s.describe(ctx, cfg)
}

func (s *servers) folder(pattern string) (string, error) {
	dir, err := os.MkdirTemp("", pattern)
	if err != nil {
		return "", fmt.Errorf("making a folder: %w", err)
	}
	s.stops = append(s.stops, func() error { return os.RemoveAll(dir) })
	return dir, nil
}

func (s *servers) describe(ctx context.Context, cfg config.Config) error {
	nc, err := nats.Connect(cfg.NATS.URL)
	if err != nil {
		return fmt.Errorf("connecting to NATS: %w", err)
	}
	defer nc.Close()
	s.nats = "NATS " + nc.ConnectedServerVersion() + " in this process"
	if s.stack.NATS == nil {
		s.nats = "NATS " + nc.ConnectedServerVersion()
	}
	switch {
	case s.postgres != nil:
		s.database = "FerretDB on PostgreSQL"
		return nil
	case s.lite:
		s.database = "FerretDB on SQLite"
		return nil
	}
	client, err := bench.Connect(cfg.MongoDB)
	if err != nil {
		return err
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }() // nothing is under way
	var info struct {
		Version string `bson:"version"`
	}
	if err := client.Database("admin").RunCommand(ctx, bson.D{{Key: "buildInfo", Value: 1}}).Decode(&info); err != nil {
		return fmt.Errorf("reaching MongoDB: %w", err)
	}
	s.database = "MongoDB " + info.Version
	return nil
}

// logger is for workers in this process: it logs where those in other processes do, at the
// default level.
func (s *servers) logger() (*zap.Logger, error) {
	file, err := os.OpenFile(filepath.Join(s.dir, "worker.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening a log: %w", err)
	}
	s.stops = append(s.stops, file.Close)
	return worker.NewLogger(config.Default().Log, file)
}

func (s *servers) stop() (failed error) {
	for _, stop := range slices.Backward(s.stops) {
		failed = errors.Join(failed, stop())
	}
	return failed
}
