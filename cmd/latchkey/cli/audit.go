package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/store/audit"
)

func (a *app) auditCommand() *cobra.Command {
	return group("audit", "Read and check the audit log", a.listAudit(), a.verifyAudit(), a.auditHeads())
}

func (a *app) listAudit() *cobra.Command {
	var user, action string
	var from time.Time
	cmd := withOutput(&cobra.Command{
		Use:   "list",
		Short: "List audit records in the order in which they were stored",
		Long: `Lists audit records in the order in which they were stored. With --output json every
line is one record.`,
		Example: `  latchkey audit list --user alice --since 24h
  latchkey audit list --action handed_out -o json | jq -r .caller.inbox | sort | uniq -c`,
		Args: cobra.NoArgs,
		RunE: a.session((*session).openJetStream, func(s *session) error {
			out := bufio.NewWriter(s.out)
			row := func(at, action, outcome, user, caller, what string) error {
				_, err := fmt.Fprintf(out, "%-24s  %s  %s  %s  %s  %s\n", at, paint(s.out, "ACTION", pad(action, 10)), paint(s.out, "OUTCOME", pad(outcome, 12)), pad(user, 20), pad(caller, 20), what)
				return err
			}
			if s.output == asTable {
				if err := row("AT", "ACTION", "OUTCOME", "USER", "CALLER", "WHAT"); err != nil {
					return err
				}
			}
			err := audit.All(s.ctx, s.js, s.cfg.NATS.Subjects(), from, func(e audit.Entry) error {
				if user != "" && e.User != user || action != "" && string(e.Action) != action {
					return nil
				}
				if s.output == asJSON {
					return printJSONLine(out, e)
				}
				return row(e.At.UTC().Format("2006-01-02T15:04:05.000Z"), printable(string(e.Action)), printable(e.Outcome), printable(e.User), printable(callerText(e.Caller)), printable(whatText(e)))
			})
			return errors.Join(err, out.Flush())
		}),
	})
	actions := make([]string, len(audit.Actions))
	for i, a := range audit.Actions {
		actions[i] = string(a)
	}
	a.userFlag(cmd, &user, "only records about this user")
	choiceFlag(cmd, &action, "action", "only records of this action", actions)
	timeFlag(cmd, &from, "since", "only records stored since then")
	return cmd
}

func callerText(c *audit.Caller) string {
	switch {
	case c == nil:
		return "-"
	case c.Account != "" || c.User != "":
		return c.Account + "/" + c.User
	case c.Inbox != "":
		return c.Inbox
	}
	return c.Name
}

// whatText says what a record is about: its grants, or something else.
func whatText(e audit.Entry) string {
	var parts []string
	for _, g := range e.Grants {
		text := fmt.Sprintf("%s %s v%d %s", g.Broker, g.ID, g.Version, strings.Join(g.Accounts, ","))
		if g.Code != "" {
			text += " (" + g.Code + ")"
		}
		parts = append(parts, strings.TrimSpace(text))
	}
	switch {
	case e.DeadLetter != "":
		parts = append(parts, "dead letter "+e.DeadLetter)
	case e.Action == audit.Lost:
		parts = append(parts, fmt.Sprintf("%d records", e.Count))
	case e.Action == audit.Begin || e.Action == audit.End:
		parts = append(parts, "chain "+e.Chain)
	}
	return strings.Join(parts, "; ")
}

var errFaults = errors.New("the audit log is not as it was written")

func (a *app) verifyAudit() *cobra.Command {
	var from time.Time
	cmd := withOutput(&cobra.Command{
		Use:   "verify",
		Short: "Check that nobody has removed or changed records of the audit log",
		Long: `Reads the whole audit log and checks that no message is missing from its streams,
that every chain is unbroken, and that it holds what MongoDB knows about each chain.
It needs NATS and MongoDB. With --output json every finding is a line, and the last
line is the summary. Exit code 0: no faults; 1: it found faults, or could not read
the log.`,
		Example: `  latchkey audit verify
  latchkey audit verify --since 24h    # after a fault that was explained`,
		Args: cobra.NoArgs,
		RunE: a.session((*session).openJetStream, func(s *session) error {
			heads, err := s.heads()
			if err != nil {
				return err
			}
			check := audit.Check{Heads: heads, Since: from, Retention: s.cfg.Retention.Audit, Now: time.Now(), OnFinding: func(f audit.Finding) {
				if s.output == asJSON {
					_ = printJSONLine(s.out, f) // the summary fails too
				} else {
					printFinding(s.out, f)
				}
			}}
			if isTerminal(s.stderr) {
				var shown time.Time
				check.OnProgress = func(read, all uint64) {
					if now := time.Now(); read == all || now.Sub(shown) > 200*time.Millisecond {
						shown = now
						fmt.Fprintf(s.stderr, "\r%d of %d messages", read, all)
					}
				}
				defer fmt.Fprintln(s.stderr)
			}
			report, err := audit.Verify(s.ctx, s.js, s.cfg.NATS.Subjects(), check)
			if err != nil {
				return err
			}
			if s.output == asJSON {
				err = printJSONLine(s.out, report)
			} else {
				_, err = fmt.Fprintf(s.out, "%d messages with %d records in %d chains, from %s to %s: %d faults, %d notes\n",
					report.Messages, report.Records, report.Chains, stamp(&report.From), stamp(&report.To), report.Faults, report.Notes)
			}
			if err == nil && report.Faults > 0 {
				err = errFaults
			}
			return err
		}),
	})
	timeFlag(cmd, &from, "since", "check only what was stored since then")
	return cmd
}

func printFinding(out io.Writer, f audit.Finding) {
	kind := "note "
	if f.Fault {
		kind = "FAULT"
	}
	where := ""
	if f.Sequence > 0 {
		where = fmt.Sprintf(" at %d of %s", f.Sequence, f.Stream)
	}
	if f.Chain != "" {
		where += " in " + f.Chain
	}
	fmt.Fprintf(out, "%s%s: %s\n", paint(out, "STATUS", kind), printable(where), printable(f.Text))
}

func (a *app) auditHeads() *cobra.Command {
	return &cobra.Command{
		Use:   "heads",
		Short: "Print the heads of all chains, to be kept elsewhere",
		Long: `Prints the heads of all chains from MongoDB, one JSON object a line. Keep them where
nobody who can write to NATS and MongoDB can write: later they show whether somebody
has changed both.`,
		Example: `  latchkey audit heads | aws s3 cp - s3://audit/heads-$(date +%F).ndjson`,
		Args:    cobra.NoArgs,
		RunE: a.session((*session).openStore, func(s *session) error {
			heads, err := s.heads()
			for _, h := range heads {
				err = errors.Join(err, printJSONLine(s.out, h))
			}
			return err
		}),
	}
}

// heads returns the heads of all chains from MongoDB.
func (s *session) heads() ([]*audit.Head, error) {
	if err := s.openStore(); err != nil {
		return nil, err
	}
	return s.db.AuditHeads(s.ctx)
}
