// Command latchkey is the worker and its command line.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/latchkey/latchkey/cmd/latchkey/cli"
)

func main() {
	ctx, stop := interruptible()
	code := cli.Run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// interruptible returns a context that SIGTERM or ctrl-C ends, so that a command can
// finish what is under way. A second ctrl-C ends the process at once; a second SIGTERM
// does not, since supervisors may send several.
func interruptible() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt) })
	return ctx, stop
}
