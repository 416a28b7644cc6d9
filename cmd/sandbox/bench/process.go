package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/workerprocess"
)

type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error  // how it ended
	admin string // address of its metrics
}

// startProcess starts a worker, which ends with ctx, and returns when it is ready.
func startProcess(ctx context.Context, exe, log string, env []string) (*process, error) {
	address, err := engines.FreeAddress()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, exe, "worker"), ended: make(chan struct{}), admin: address}
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = time.Minute
	if err := workerprocess.Start(p.cmd, append(env, "LATCHKEY_ADMIN_LISTEN="+address), log); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	if err := p.await(ctx, log); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

func (p *process) await(ctx context.Context, log string) error {
	for {
		if res, err := http.Get("http://" + p.admin + "/readyz"); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-p.ended:
			tail, _ := os.ReadFile(log)
			return fmt.Errorf("a worker ended before it was ready: %s", tail[max(0, len(tail)-1000):])
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop ends the worker as an orchestrator would.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails when it has ended
	<-p.ended
	if p.err != nil {
		return fmt.Errorf("a worker did not stop cleanly: %w", p.err)
	}
	return nil
}
