package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"time"

	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/store/audit"
)

// commandLog records in a chain of its own what a command does.
type commandLog struct {
	ctx    context.Context
	cfg    config.Audit
	log    *audit.Log
	stderr io.Writer
}

// openAudit begins the command's chain. heads may be nil.
func (s *session) openAudit(heads audit.Heads) error {
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("naming the audit chain: %w", err)
	}
	if err := s.openJetStream(); err != nil {
		return err
	}
	log, err := worker.AuditLog(s.cfg, s.js, "cli-"+host, time.Now, heads, nil, nil)
	if err != nil {
		return err
	}
	s.audit = &commandLog{s.ctx, s.cfg.Audit, log, s.stderr}
	s.audit.log.Start()
	return nil
}

// before records what is about to happen to a dead letter. If audit.mode is required
// and the record can't be written, it does not happen.
func (l *commandLog) before(action audit.Action, outcome string, do func(context.Context, handlers.ParkedLetter) error) func(context.Context, handlers.ParkedLetter) error {
	return func(ctx context.Context, letter handlers.ParkedLetter) error {
		if err := l.record(ctx, audit.Record{Action: action, Outcome: outcome, DeadLetter: letter.ID}); err != nil {
			return fmt.Errorf("nothing was done to dead letter %s: %w", printable(letter.ID), err)
		}
		return do(ctx, letter)
	}
}

// record records what somebody at the command line is about to do. An error means that it
// must not happen.
func (l *commandLog) record(ctx context.Context, r audit.Record) error {
	within, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	r.Caller = &audit.Caller{Name: osUser()}
	if err := l.log.Write(within, r); err != nil && l.cfg.Mode == config.AuditRequired {
		return err
	}
	return nil
}

// end ends the chain, and warns if a record was lost.
func (l *commandLog) end() {
	ctx := l.ctx
	var refused *worker.PermissionError
	if !errors.As(context.Cause(ctx), &refused) { // then waiting is of no use
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	if err := l.log.Stop(ctx); err != nil {
		fmt.Fprintln(l.stderr, "latchkey: warning: the audit log does not hold all of this:", err)
	}
}

// osUser returns the name of the operating system's user, or "".
func osUser() string {
	u, err := user.Current()
	if err != nil {
		return ""
	}
	return u.Username
}
