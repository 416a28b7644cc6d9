package cli

import (
	"context"
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

// commandLog records what a command does, in a chain of its own.
type commandLog struct {
	ctx    context.Context
	cfg    config.Audit
	log    *audit.Log
	stderr io.Writer
}

// auditing begins the chain of the command, which ends with it. heads may be nil.
func (s *session) auditing(heads audit.Heads) (*commandLog, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("naming the audit chain: %w", err)
	}
	js, err := s.streams()
	if err != nil {
		return nil, err
	}
	s.audit = &commandLog{s.ctx, s.cfg.Audit, worker.AuditLog(s.cfg, js, "cli-"+host, time.Now, heads, nil, nil), s.cmd.ErrOrStderr()}
	s.audit.log.Start()
	return s.audit, nil
}

// before has what is done to a dead letter recorded first. Where audit.mode is
// required, it is not done without.
func (l *commandLog) before(action audit.Action, outcome string, do func(context.Context, handlers.ParkedLetter) error) func(context.Context, handlers.ParkedLetter) error {
	return func(ctx context.Context, letter handlers.ParkedLetter) error {
		within, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
		defer cancel()
		record := audit.Record{Action: action, Outcome: outcome, DeadLetter: letter.ID, Caller: &audit.Caller{Name: osUser()}}
		if err := l.log.Write(within, record); err != nil && l.cfg.Mode == config.AuditRequired {
			return fmt.Errorf("nothing was done to dead letter %s: %w", printable(letter.ID), err)
		}
		return do(ctx, letter)
	}
}

// end ends the chain, and tells when something was done without its record.
func (l *commandLog) end() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), l.cfg.Timeout)
	defer cancel()
	if err := l.log.Stop(ctx); err != nil {
		fmt.Fprintln(l.stderr, "latchkey: warning: the audit log does not hold all of this:", err)
	}
}

// osUser is who runs the command, by the word of the operating system.
func osUser() string {
	u, err := user.Current()
	if err != nil {
		return ""
	}
	return u.Username
}
