package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/memory"
	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
	"github.com/latchkey/latchkey/store/streams"
)

// session is one run of a command, with its configuration and its connections. Each
// open method sets the field that it is named after.
type session struct {
	// ctx ends too when NATS refuses something, with a *worker.PermissionError as its cause.
	ctx         context.Context
	end         context.CancelCauseFunc
	args        []string
	in          io.Reader
	out, stderr io.Writer
	output      format
	cfg         config.Config
	missing     *config.Error // required values that were not given; see need

	nc      *nats.Conn
	js      jetstream.JetStream
	db      *store.Store
	letters *handlers.DeadLetters
	env     *envelope.Envelope
	audit   *commandLog
}

// session returns the RunE of a command: it opens what the command needs, runs it,
// and closes everything.
func (a *app) session(open, run func(*session) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		cfg, missing, err := a.loadSome()
		if err != nil {
			return err
		}
		s := &session{args: args, in: cmd.InOrStdin(), out: cmd.OutOrStdout(), stderr: cmd.ErrOrStderr(), output: outputOf(cmd), cfg: cfg, missing: missing}
		s.ctx, s.end = context.WithCancelCause(cmd.Context())
		defer s.end(nil)
		defer s.close()
		if err = open(s); err == nil {
			err = run(s)
		}
		return worker.Explain(s.ctx, s.nc, err)
	}
}

// need returns an error if a required value of a section of the configuration is missing.
func (s *session) need(sections ...string) error {
	if s.missing != nil {
		if err := s.missing.Needed(sections...); err != nil {
			return &exitError{ExitUsage, err}
		}
	}
	return nil
}

// needing is open for a command that will use these sections too, so that it ends before it
// does anything.
func needing(open func(*session) error, sections ...string) func(*session) error {
	return func(s *session) error {
		if err := s.need(sections...); err != nil {
			return err
		}
		return open(s)
	}
}

func (s *session) close() {
	if s.audit != nil {
		s.audit.end()
	}
	if s.env != nil {
		s.env.Close()
	}
	if s.db != nil {
		_ = s.db.Close(context.WithoutCancel(s.ctx)) // nothing is under way
	}
	if s.nc != nil {
		s.nc.Close()
	}
}

// show prints v as --output says: as JSON or as a table.
func (s *session) show(v any, rows ...[]string) error { return s.output.show(s.out, v, rows...) }

// guard protects the memory of a command that handles tokens.
func (s *session) guard() error {
	if _, err := memory.Guard(memory.Mode(s.cfg.Worker.LockMemory)); err != nil {
		return fmt.Errorf("worker.lock_memory: %w", err)
	}
	return nil
}

func (s *session) openNATS() (err error) {
	if s.nc == nil {
		s.nc, err = worker.Connect(s.cfg.NATS, "cli", zap.NewNop(), worker.EndOnRefusal(s.cfg.NATS, s.end))
	}
	return err
}

func (s *session) openJetStream() error {
	err := s.openNATS()
	if err == nil && s.js == nil {
		s.js, err = worker.JetStream(s.nc)
	}
	return err
}

// openStore opens the database and checks that it belongs to the configured prefix.
func (s *session) openStore() (err error) {
	if s.db != nil {
		return nil
	}
	if s.db, err = worker.OpenStore(s.ctx, s.cfg.MongoDB); err != nil {
		return err
	}
	return streams.CheckPrefix(s.ctx, s.db, s.cfg.NATS.Prefix)
}

// openInstallation opens JetStream and the database and checks that they belong together.
func (s *session) openInstallation() error {
	if err := s.openJetStream(); err != nil {
		return err
	}
	if err := s.openStore(); err != nil {
		return err
	}
	topology, err := streams.New(streams.Options{JetStream: s.js, State: s.db, Config: s.cfg, Log: zap.NewNop()})
	if err != nil {
		return err
	}
	_, err = topology.CheckInstallation(s.ctx)
	return err
}

// openDeadLetters opens the dead letters, whose bodies stay sealed unless the envelope is open.
func (s *session) openDeadLetters() error {
	err := s.openJetStream()
	if err == nil {
		s.letters, err = handlers.NewDeadLetters(handlers.DeadLettersOptions{JetStream: s.js, Subjects: s.cfg.NATS.Subjects(), Envelope: s.env, Grants: s.grantsOf})
	}
	return err
}

// grantsOf returns the grants of a user. It opens the database first, since most commands
// about dead letters do without.
func (s *session) grantsOf(ctx context.Context, user string) ([]*store.Grant, error) {
	if err := s.openStore(); err != nil {
		return nil, err
	}
	return s.db.ByUser(ctx, user)
}

// openEnvelope opens what is sealed, and protects the memory first.
func (s *session) openEnvelope() (err error) {
	if s.env != nil {
		return nil
	}
	if err := s.need("kms"); err != nil {
		return err
	}
	if err := s.guard(); err != nil {
		return err
	}
	if err := s.openStore(); err != nil {
		return err
	}
	s.env, err = worker.Envelope(s.ctx, s.cfg, s.db, time.Now, nil)
	return err
}

// openBodies is openDeadLetters with the envelope that opens bodies.
func (s *session) openBodies() error {
	if err := s.openEnvelope(); err != nil {
		return err
	}
	return s.openDeadLetters()
}

// dispatcher returns a dispatcher of the open installation.
func (s *session) dispatcher() (*refresher.Dispatcher, error) {
	return refresher.NewDispatcher(refresher.DispatcherOptions{
		JetStream: s.js, Store: s.db, Subjects: s.cfg.NATS.Subjects(), Horizon: s.cfg.Refresh.Horizon, Now: time.Now, Log: zap.NewNop(), Metrics: prometheus.NewRegistry(),
	})
}
