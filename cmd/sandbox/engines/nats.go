package engines

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// natsSyncInterval is how much of the last writes a power loss may take; a killed process loses nothing. The server's
// default of two minutes is too long for schedules and events that nobody repeats, and syncing every message costs each
// publisher a disk flush. A production broker has replicas instead.
const natsSyncInterval = time.Second

// natsStartTimeout bounds the wait for a server to recover its streams and accept clients.
const natsStartTimeout = 30 * time.Second

type NATSOptions struct {
	Dir  string // of JetStream's files; created when missing; required
	Port int    // on loopback; 0 takes a free one, which the server keeps across restarts
	// Key encrypts what JetStream stores, with ChaCha20-Poly1305; "" stores in the clear. With another key than the
	// one that wrote its files a server starts without its streams.
	Key       string
	MaxStore  int64                 // bound of what JetStream stores, in bytes, to simulate a full disk; 0: none
	Logger    server.Logger         // takes the server's log
	LogFile   string                // takes the log when Logger is nil; "": no log
	Configure func(*server.Options) // changes the server's options last, at every start
}

// NATS is an embedded NATS server with JetStream. It is safe for concurrent use.
type NATS struct {
	opts NATSOptions

	mu     sync.Mutex
	server *server.Server // nil while stopped
}

func StartNATS(opts NATSOptions) (*NATS, error) {
	n, err := newNATS(opts)
	if err != nil {
		return nil, err
	}
	if err := n.Restart(); err != nil {
		return nil, err
	}
	return n, nil
}

func newNATS(opts NATSOptions) (*NATS, error) {
	if opts.Dir == "" {
		return nil, errors.New("starting NATS: no directory given")
	}
	port, err := claimPort(opts.Port)
	if err != nil {
		return nil, fmt.Errorf("starting NATS: %w", err)
	}
	opts.Port = port
	return &NATS{opts: opts}, nil
}

// URL returns the address for clients, the same while stopped and after a restart.
func (n *NATS) URL() string { return "nats://" + address(n.opts.Port) }

func (n *NATS) Port() int { return n.opts.Port }

// Server returns the running server, nil while stopped.
func (n *NATS) Server() *server.Server {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.server
}

// Stop disconnects the clients, closes the stores and returns when all is written.
func (n *NATS) Stop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stop()
}

func (n *NATS) stop() {
	if n.server == nil {
		return
	}
	n.server.Shutdown()
	n.server.WaitForShutdown()
	n.server = nil
}

// Restart stops the server if it runs and starts it on the same port with what it stored.
func (n *NATS) Restart() error {
	if err := n.launch(); err != nil {
		return err
	}
	return n.await()
}

// launch restarts the server without waiting until it is ready.
func (n *NATS) launch() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stop()
	return n.start()
}

func (n *NATS) await() error {
	if s := n.Server(); s == nil || !s.ReadyForConnections(natsStartTimeout) {
		n.Stop()
		return fmt.Errorf("starting NATS: not ready on port %d after %v", n.opts.Port, natsStartTimeout)
	}
	return nil
}

// Wipe stops the server and deletes what it stored. Restart then starts it empty.
func (n *NATS) Wipe() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stop()
	if err := os.RemoveAll(filepath.Join(n.opts.Dir, server.JetStreamStoreDir)); err != nil {
		return fmt.Errorf("wiping NATS: %w", err)
	}
	return nil
}

func (n *NATS) start() error {
	// The server gives up a taken port by calling its logger's Fatalf, which may end the process.
	if _, err := claimPort(n.opts.Port); err != nil {
		return fmt.Errorf("starting NATS: %w", err)
	}
	o := n.options()
	s, err := server.NewServer(o)
	if err != nil {
		return fmt.Errorf("starting NATS: %w", err)
	}
	if n.opts.Logger != nil {
		s.SetLogger(n.opts.Logger, o.Debug, o.Trace)
	} else {
		s.ConfigureLogger()
	}
	s.Start()
	n.server = s
	return nil
}

// options are built anew each time because the server changes those that it is given.
func (n *NATS) options() *server.Options {
	o := &server.Options{
		Host:                   loopback,
		Port:                   n.opts.Port,
		JetStream:              true,
		StoreDir:               n.opts.Dir,
		JetStreamKey:           n.opts.Key,
		JetStreamCipher:        server.ChaCha,
		JetStreamMaxStore:      n.opts.MaxStore,
		SyncInterval:           natsSyncInterval,
		LogFile:                n.opts.LogFile,
		Logtime:                true,
		NoSigs:                 true,
		NoLog:                  n.opts.LogFile == "",
		DisableJetStreamBanner: true,
	}
	if n.opts.Configure != nil {
		n.opts.Configure(o)
	}
	return o
}

// Reload reloads the options of the running server, as Configure makes them now.
func (n *NATS) Reload() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.server == nil {
		return errors.New("reloading NATS: not running")
	}
	if err := n.server.ReloadOptions(n.options()); err != nil {
		return fmt.Errorf("reloading NATS: %w", err)
	}
	return nil
}
