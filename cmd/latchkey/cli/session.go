package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/memory"
	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
	"github.com/latchkey/latchkey/store/streams"
)

// session is what a command works with: the configuration, and connections that
// are made when they are first asked for and closed when the command ends.
type session struct {
	cmd *cobra.Command
	ctx context.Context
	out io.Writer
	cfg config.Config

	nc    *nats.Conn
	js    jetstream.JetStream
	db    *store.Store
	env   *envelope.Envelope
	audit *commandLog
}

// with runs do with a session.
func (a *app) with(cmd *cobra.Command, do func(*session) error) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	s := &session{cmd: cmd, ctx: cmd.Context(), out: cmd.OutOrStdout(), cfg: cfg}
	defer s.close()
	return do(s)
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

// guard keeps the memory of a command that has tokens in it from being written out.
func (s *session) guard() error {
	if _, err := memory.Guard(memory.Mode(s.cfg.Worker.LockMemory)); err != nil {
		return fmt.Errorf("worker.lock_memory: %w", err)
	}
	return nil
}

// connect connects to NATS.
func (s *session) connect() (*nats.Conn, error) {
	if s.nc != nil {
		return s.nc, nil
	}
	var err error
	s.nc, err = worker.Connect(s.cfg.NATS, "cli", zap.NewNop())
	return s.nc, err
}

func (s *session) streams() (jetstream.JetStream, error) {
	if s.js != nil {
		return s.js, nil
	}
	nc, err := s.connect()
	if err != nil {
		return nil, err
	}
	s.js, err = worker.JetStream(nc)
	return s.js, err
}

// store opens the database, which must be that of the installation.
func (s *session) store() (*store.Store, error) {
	if s.db != nil {
		return s.db, nil
	}
	var err error
	if s.db, err = worker.OpenStore(s.ctx, s.cfg.MongoDB); err != nil {
		return nil, err
	}
	return s.db, streams.CheckPrefix(s.ctx, s.db, s.cfg.NATS.Prefix)
}

// installation opens database and streams, which must belong together.
func (s *session) installation() (*store.Store, jetstream.JetStream, error) {
	js, err := s.streams()
	if err != nil {
		return nil, nil, err
	}
	db, err := s.store()
	if err != nil {
		return nil, nil, err
	}
	_, err = streams.New(js, db, s.cfg, zap.NewNop()).CheckInstallation(s.ctx)
	return db, js, err
}

// deadLetters returns the dead letters, which an envelope opens; nil: they stay closed.
func (s *session) deadLetters(env *envelope.Envelope) (*handlers.DeadLetters, error) {
	js, err := s.streams()
	if err != nil {
		return nil, err
	}
	return handlers.NewDeadLetters(handlers.DeadLettersOptions{JetStream: js, Subjects: s.cfg.NATS.Subjects(), Envelope: env})
}

// envelope opens and seals with the data keys of the database.
func (s *session) envelope() (*envelope.Envelope, error) {
	if s.env != nil {
		return s.env, nil
	}
	db, err := s.store()
	if err != nil {
		return nil, err
	}
	s.env, err = worker.Envelope(s.ctx, s.cfg, db, time.Now, nil)
	return s.env, err
}
