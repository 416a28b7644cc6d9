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

// process is this program in another process, as a worker or as the home-made service.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error  // how it ended
	admin string // address of a worker's metrics
}

// startWorker starts a worker, which ends with ctx, and returns when it is ready.
func startWorker(ctx context.Context, exe, log string, env []string) (*process, error) {
	address, err := engines.FreeAddress()
	if err != nil {
		return nil, err
	}
	p, err := startProcess(ctx, exe, log, append(env, "LATCHKEY_ADMIN_LISTEN="+address), func() bool {
		res, err := http.Get("http://" + address + "/readyz")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	}, "worker")
	if err != nil {
		return nil, err
	}
	p.admin = address
	return p, nil
}

// startProcess starts this program, which ends with ctx, and returns when it is ready.
func startProcess(ctx context.Context, exe, log string, env []string, ready func() bool, args ...string) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, exe, args...), ended: make(chan struct{})}
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = stopTimeout
	if err := workerprocess.Start(p.cmd, env, log); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	for !ready() {
		select {
		case <-p.ended:
			tail, _ := os.ReadFile(log)
			return nil, fmt.Errorf("%s ended before it was ready: %s", args[0], tail[max(0, len(tail)-1000):])
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), p.stop())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return p, nil
}

// kill ends the process as a crash does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails when it has ended
	<-p.ended
}

// stopTimeout is how long a process may take to stop before it is killed.
const stopTimeout = time.Minute

// stop ends the process as an orchestrator would.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails when it has ended
	late := time.AfterFunc(stopTimeout, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	<-p.ended
	if p.err != nil {
		return fmt.Errorf("%s did not stop cleanly: %w", p.cmd.Args[1], p.err)
	}
	return nil
}
