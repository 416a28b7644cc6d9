package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

// broker is the broker of all grants that are refreshed.
const broker = "bench"

// lifetime is that of an access token: long enough that none comes due again
// while it is measured.
const lifetime = 12 * time.Hour

// servers are what is measured on.
type servers struct {
	stack    *stack.Stack
	postgres *engines.Postgres
	dirs     []string
	logs     []*os.File
	// nats and database say what stands behind; lite: a database for small sizes.
	nats, database string
	lite           bool
}

func startServers(ctx context.Context, o Options) (s *servers, err error) {
	s = &servers{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	dir, err := s.folder("latchkey-bench-")
	if err != nil {
		return s, err
	}
	options := stack.Options{Dir: dir, NATSURL: o.NATSURL, MongoDBURI: o.MongoDBURI, Institutions: map[string]meshsim.Institution{
		broker: {AccessLifetime: lifetime, RefreshLifetime: 90 * 24 * time.Hour},
	}}
	if o.MongoDBURI == "" {
		s.lite = true
	}
	if o.MongoDBURI == "" && !o.SQLite {
		// A folder of its own, which another user than this one may have to own.
		data, err := s.folder("latchkey-bench-postgres-")
		if err != nil {
			return s, err
		}
		s.postgres, err = engines.StartPostgres(ctx, data)
		if err != nil && !errors.Is(err, engines.ErrNoPostgres) {
			return s, err
		}
		if err == nil {
			options.PostgresURL, s.lite = s.postgres.URL(), false
		}
	}
	if s.stack, err = stack.Start(options); err != nil {
		return s, err
	}
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
	s.dirs = append(s.dirs, dir)
	return dir, nil
}

// describe asks the servers what they are.
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

// logger writes what workers in this process log where those in processes of
// their own do, at the level that is the default.
func (s *servers) logger() (*zap.Logger, error) {
	file, err := s.logFile("worker.log")
	if err != nil {
		return nil, err
	}
	return worker.NewLogger(config.Default().Log, file)
}

func (s *servers) logFile(name string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(s.dirs[0], name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening a log: %w", err)
	}
	s.logs = append(s.logs, file)
	return file, nil
}

// stop ends the servers and removes their data.
func (s *servers) stop() error {
	if s.stack != nil {
		s.stack.Stop()
	}
	if s.postgres != nil {
		s.postgres.Stop()
	}
	var failed error
	for _, log := range s.logs {
		failed = errors.Join(failed, log.Close())
	}
	for _, dir := range s.dirs {
		failed = errors.Join(failed, os.RemoveAll(dir))
	}
	return failed
}
