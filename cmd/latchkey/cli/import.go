package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/imports"
	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events/client"
)

// importReport is the output of an import.
type importReport struct {
	DryRun bool `json:"dryRun"`
	imports.State
	// FirstRejects are the first rejects of this run.
	FirstRejects []imports.Reject `json:"firstRejects"`
}

const firstRejects = 10

func (a *app) importCommand() *cobra.Command {
	var o imports.Options
	var dryRun bool
	var timeout time.Duration
	cmd := withOutput(&cobra.Command{
		Use:   "import FILE|-",
		Short: "Hand tokens that you already have to the workers",
		Long: `Reads tokens, one JSON object a line, and publishes an integration.connected event
for each line; docs/importing.md describes the two forms of a line. Lines that have
neither form are rejected; the others are imported. Of a rejected line the output
only has the number and the reason.

With --state you can continue an import that was interrupted. If that publishes a
line twice, the second time changes nothing.

Exit code 1: a line was rejected, or could not be published.`,
		Example: `  latchkey import tokens.ndjson --dry-run
  latchkey import tokens.ndjson --state import.state --rejects rejects.ndjson --rate 50
  export-tokens | latchkey import - --state import.state --output json`,
		Args:              noEmpty(cobra.ExactArgs(1)),
		ValidArgsFunction: once(offerFiles),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Now, o.MaxBytes = time.Now, config.Default().Connect.MaxBytes
			ctx, end := context.WithCancelCause(cmd.Context())
			defer end(nil)
			var nc *nats.Conn
			if !dryRun {
				cfg, _, err := a.loadSome()
				if err != nil {
					return err
				}
				if nc, err = worker.Connect(cfg.NATS, "import", zap.NewNop(), worker.EndOnRefusal(cfg.NATS, end)); err != nil {
					return err
				}
				defer nc.Close()
				latchkey, err := client.New(nc, client.Prefix(cfg.NATS.Prefix), client.Timeout(timeout))
				if err != nil {
					return err
				}
				o.MaxBytes, o.Publish = cfg.Connect.MaxBytes, latchkey.PublishConnectedBody
			}
			in, size, err := a.openImport(ctx, cmd, args[0])
			if err != nil {
				return err
			}
			defer in.Close()
			o.In = in
			report := importReport{DryRun: dryRun, FirstRejects: []imports.Reject{}}
			o.OnReject = func(r imports.Reject) {
				if len(report.FirstRejects) < firstRejects {
					report.FirstRejects = append(report.FirstRejects, r)
				}
			}
			done := a.showProgress(&o, size)
			report.State, err = imports.Run(ctx, o)
			err = worker.Explain(ctx, nc, err)
			done()
			if errors.Is(err, context.Canceled) && cmd.Context().Err() != nil {
				err = fmt.Errorf("interrupted after line %d; run it again with the same --state to continue: %w", report.Lines, err)
			}
			err = errors.Join(report.show(cmd), err)
			if report.Rejected > 0 {
				err = errors.Join(err, fmt.Errorf("%d of %d lines were rejected", report.Rejected, report.Lines))
			}
			return err
		},
	})
	flags := cmd.Flags()
	flags.StringVar(&o.StateFile, "state", "", "file that keeps how far the import has come")
	flags.StringVar(&o.RejectsFile, "rejects", "", "file for the numbers of rejected lines, with the reasons")
	numberFlag(cmd, &o.Rate, "rate", "publish at most this many lines a second (default: no limit)")
	countFlag(cmd, &o.InFlight, "in-flight", 64, 1, math.MaxInt, "most lines that wait for their acknowledgement at once")
	durationFlag(cmd, &timeout, "timeout", 5*time.Minute, positive, "how long to retry a line while NATS is away or its stream is full")
	flags.BoolVar(&dryRun, "dry-run", false, "only validate; needs neither configuration nor NATS")
	exclusive(cmd, "dry-run", "state")
	fileFlag(cmd, "state")
	fileFlag(cmd, "rejects")
	return cmd
}

// openImport opens the input, which ends with ctx. Its size is -1 if it is not known.
func (a *app) openImport(ctx context.Context, cmd *cobra.Command, path string) (in io.ReadCloser, size int64, err error) {
	if path == "-" {
		return until(ctx, cmd.InOrStdin()), -1, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("opening the input: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, 0, fmt.Errorf("reading the size of the input: %w", err)
	}
	if info.Mode().Perm()&0o004 != 0 {
		fmt.Fprintf(a.stderr, "latchkey: warning: every user of this machine can read %s, which holds tokens; chmod 600 it\n", printable(path))
	}
	if !info.Mode().IsRegular() {
		return struct {
			io.Reader
			io.Closer
		}{until(ctx, f), f}, -1, nil
	}
	return f, info.Size(), nil
}

// until returns what in holds, and the error of ctx when that ends: a read from a terminal
// or a pipe can't be stopped.
func until(ctx context.Context, in io.Reader) io.ReadCloser {
	out, from := io.Pipe()
	context.AfterFunc(ctx, func() { _ = from.CloseWithError(ctx.Err()) }) // it never fails
	go func() {
		_, err := io.Copy(from, in)
		_ = from.CloseWithError(err)
	}()
	return out
}

// showProgress shows a progress bar if standard error is a terminal.
func (a *app) showProgress(o *imports.Options, size int64) (done func()) {
	if !isTerminal(a.stderr) {
		return func() {}
	}
	bar := progressbar.NewOptions64(size, progressbar.OptionSetWriter(a.stderr), progressbar.OptionSetDescription("importing"),
		progressbar.OptionShowBytes(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	o.Progress = func(s imports.State) { _ = bar.Set64(s.Offset) } // nothing to do about a terminal
	return func() { _ = bar.Finish() }
}

func (r importReport) show(cmd *cobra.Command) error {
	accepted := "published"
	if r.DryRun {
		accepted = "valid"
	}
	rows := [][]string{
		{"lines", fmt.Sprint(r.Lines)}, {accepted, fmt.Sprint(r.Accepted)}, {"repeated", fmt.Sprint(r.Repeated)}, {"rejected", fmt.Sprint(r.Rejected)},
	}
	for _, reject := range r.FirstRejects {
		rows = append(rows, []string{fmt.Sprint("line ", reject.Line), reject.Reason})
	}
	return outputOf(cmd).show(cmd.OutOrStdout(), r, rows...)
}
