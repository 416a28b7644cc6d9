package engines

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"github.com/FerretDB/FerretDB/ferretdb"
)

type FerretDBOptions struct {
	Dir         string       // of the SQLite files, one a database; created when missing
	PostgresURL string       // a database to store in instead, for more documents than SQLite is fit for
	Port        int          // on loopback; 0 takes a free one, which the server keeps across restarts
	Logger      *slog.Logger // nil: no log
}

// ProgramVariable is the environment variable that names cmd/sandbox/engines/ferretdb, built. Servers then run in
// processes of that program, without logs: under the race detector a server in this process takes most of a test's time,
// and its races are not ours.
const ProgramVariable = "LATCHKEY_TEST_FERRETDB"

// FerretDB is an embedded server that speaks MongoDB's wire protocol, behind a [Proxy] that makes updates of a document
// atomic, as MongoDB's are. It is safe for concurrent use.
type FerretDB struct {
	opts  FerretDBOptions
	proxy *Proxy

	mu     sync.Mutex
	cancel context.CancelFunc // nil while stopped
	done   <-chan struct{}
}

func StartFerretDB(opts FerretDBOptions) (*FerretDB, error) {
	if opts.Dir == "" && opts.PostgresURL == "" {
		return nil, errors.New("starting FerretDB: neither a directory nor a PostgreSQL URL given")
	}
	f := &FerretDB{opts: opts, proxy: newProxy(opts.Port, opts.PostgresURL == "")}
	if err := f.Restart(); err != nil {
		return nil, err
	}
	return f, nil
}

// URI returns the address for clients, the same while stopped and after a restart: a direct connection without retries of
// writes, since FerretDB has neither a replica set nor transaction numbers.
func (f *FerretDB) URI() string {
	q := url.Values{"directConnection": {"true"}, "retryWrites": {"false"}}
	return (&url.URL{Scheme: "mongodb", Host: f.proxy.Addr(), Path: "/", RawQuery: q.Encode()}).String()
}

func (f *FerretDB) Port() int { return f.proxy.Port() }

// Proxy returns the proxy in front of the server, to make it fail.
func (f *FerretDB) Proxy() *Proxy { return f.proxy }

// Stop disconnects the clients, lets running commands finish and closes the database.
func (f *FerretDB) Stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stop()
}

func (f *FerretDB) stop() {
	if f.cancel == nil {
		return
	}
	// FerretDB waits seconds for its clients to leave, so the proxy goes first.
	f.proxy.stop()
	f.cancel()
	<-f.done
	f.cancel = nil
}

// Restart stops the server if it runs and starts it on the same port with what it stored. Faults of the proxy stay.
func (f *FerretDB) Restart() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stop()
	if err := f.start(); err != nil {
		return fmt.Errorf("starting FerretDB: %w", err)
	}
	return nil
}

func (f *FerretDB) start() error {
	ctx, cancel := context.WithCancel(context.Background())
	run := RunFerretDB
	if program := os.Getenv(ProgramVariable); program != "" {
		run = func(ctx context.Context, opts FerretDBOptions) (string, <-chan struct{}, error) {
			return runProgram(ctx, program, opts)
		}
	}
	uri, done, err := run(ctx, f.opts)
	if err != nil {
		cancel()
		return err
	}
	f.cancel, f.done = cancel, done
	if err := f.open(ctx, uri); err != nil {
		f.stop()
		return err
	}
	return nil
}

// open admits clients to the FerretDB that runs at uri.
func (f *FerretDB) open(ctx context.Context, uri string) error {
	u, err := url.Parse(uri)
	if err != nil {
		return err
	}
	if err := f.AddIndexes(ctx); err != nil {
		return err
	}
	return f.proxy.start(u.Host)
}

func (o FerretDBOptions) config() (*ferretdb.Config, error) {
	c := &ferretdb.Config{Listener: ferretdb.ListenerConfig{TCP: address(0)}, Logger: o.Logger}
	if o.PostgresURL != "" {
		c.Handler, c.PostgreSQLURL = "postgresql", o.PostgresURL
		return c, nil
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	c.Handler, c.SQLiteURL = "sqlite", sqliteURL(dir)
	return c, nil
}

// sqliteURL names the directory of the databases. In write-ahead mode without a flush at every commit a killed process
// loses nothing, and a power loss at most the last commits.
func sqliteURL(dir string) string {
	q := url.Values{"_pragma": {"busy_timeout(10000)", "journal_mode(wal)", "synchronous(normal)"}}
	return (&url.URL{Scheme: "file", Path: dir + "/", RawQuery: q.Encode(), OmitHost: true}).String()
}
