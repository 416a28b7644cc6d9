package engines

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

var ErrNoPostgres = errors.New("no PostgreSQL server installed")

const (
	postgresUser         = "postgres"
	postgresStartTimeout = 60 * time.Second
	// postgresConnections are enough for the commands that FerretDB runs at once (maxRunning) and for cursors.
	postgresConnections = 200
)

// postgresSettings are for speed and for plans that do not depend on what ran before. Without fsync a power loss may ruin
// the files, which hold test data; a killed process loses nothing.
var postgresSettings = []string{
	"fsync=off", "full_page_writes=off", "synchronous_commit=off",
	"wal_level=minimal", "max_wal_senders=0", "max_wal_size=4GB", "shared_buffers=256MB", "jit=off",
	"max_connections=" + strconv.Itoa(postgresConnections+10), "listen_addresses=" + loopback, "unix_socket_directories=",
	// FerretDB passes the names of fields as parameters. Only a plan made for their values can use an index on one.
	"plan_cache_mode=force_custom_plan",
}

// Postgres is a PostgreSQL server in a process of its own, for FerretDB to store in.
type Postgres struct {
	port int
	cmd  *exec.Cmd
	log  bytes.Buffer // to be read after exit only

	stop   sync.Once
	exited chan struct{}
}

// StartPostgres starts a server on a free loopback port, with its files in dir, and returns when it accepts
// connections from anyone on this machine. It returns ErrNoPostgres when none is installed. Root runs the server as the
// user postgres, as PostgreSQL demands, who then owns dir and must be able to reach it.
func StartPostgres(ctx context.Context, dir string) (*Postgres, error) {
	bin, err := findPostgres()
	if err != nil {
		return nil, err
	}
	p, err := startPostgres(ctx, bin, dir)
	if err != nil {
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	return p, nil
}

func startPostgres(ctx context.Context, bin, dir string) (*Postgres, error) {
	ctx, cancel := context.WithTimeout(ctx, postgresStartTimeout)
	defer cancel()
	if err := initPostgres(ctx, bin, dir); err != nil {
		return nil, err
	}
	port, err := claimPort(0)
	if err != nil {
		return nil, err
	}
	args := []string{"-D", dir, "-p", strconv.Itoa(port)}
	for _, s := range postgresSettings {
		args = append(args, "-c", s)
	}
	p := &Postgres{port: port, cmd: exec.Command(filepath.Join(bin, "postgres"), args...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := runAsPostgres(p.cmd, dir); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // what matters is in its log
	}()
	if err := p.await(ctx); err != nil {
		p.Stop()
		return nil, fmt.Errorf("%w: %s", err, p.log.Bytes())
	}
	return p, nil
}

// initPostgres makes the files of an empty server, unless dir holds some.
func initPostgres(ctx context.Context, bin, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "PG_VERSION")); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	init := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", dir, "-U", postgresUser,
		"--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
	if err := runAsPostgres(init, dir); err != nil {
		return err
	}
	if out, err := init.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return nil
}

func (p *Postgres) await(ctx context.Context) error {
	for {
		conn, err := pgx.Connect(ctx, p.url(nil).String())
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-p.exited:
			return errors.New("the server ended")
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// URL returns the address of the database to store in, for [FerretDBOptions].
func (p *Postgres) URL() string {
	return p.url(url.Values{"pool_max_conns": {strconv.Itoa(postgresConnections)}}).String()
}

func (p *Postgres) url(more url.Values) *url.URL {
	q := url.Values{"sslmode": {"disable"}}
	maps.Copy(q, more)
	return &url.URL{Scheme: "postgres", User: url.User(postgresUser), Host: address(p.port), Path: "/postgres", RawQuery: q.Encode()}
}

// Stop ends the server and returns when its process is gone.
func (p *Postgres) Stop() {
	p.stop.Do(func() { _ = p.cmd.Process.Signal(syscall.SIGINT) }) // "fast": does not wait for clients to leave
	<-p.exited
}

// findPostgres returns the directory of the server's programs, of the newest version if Debian installed several.
func findPostgres() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return "", ErrNoPostgres
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return majorVersion(a) - majorVersion(b) })
	return filepath.Dir(newest), nil
}

// majorVersion returns the 15 of /usr/lib/postgresql/15/bin/initdb.
func majorVersion(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}
