package chaos

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/http2peer"
	"github.com/latchkey/latchkey/cmd/sandbox/workerprocess"
)

// restartPause is how long a worker that ended by itself stays down, as under an
// orchestrator.
const restartPause = 500 * time.Millisecond

// process is a worker in a process of its own. It is restarted when it ends by itself, as
// when a server is away.
type process struct {
	exe    string
	env    []string
	log    string
	offset time.Duration   // of its clock
	mesh   string          // URL at which it reaches Mesh
	admin  string          // address of its metrics
	peer   *http2peer.Peer // serves it when it reaches Mesh over TLS; else nil

	mu   sync.Mutex
	cmd  *exec.Cmd // nil while it is meant to be down
	done chan struct{}
	err  error // how the last one ended
}

func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.launch()
}

// The caller holds the lock.
func (p *process) launch() error {
	cmd := exec.Command(p.exe, "worker", "--clock-offset", p.offset.String())
	if err := workerprocess.Start(cmd, p.env, p.log); err != nil {
		return err
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go p.supervise(cmd, done)
	return nil
}

// supervise waits for the end of a process, and starts another if that was not intended.
func (p *process) supervise(cmd *exec.Cmd, done chan struct{}) {
	err := cmd.Wait()
	p.mu.Lock()
	p.err = err
	p.mu.Unlock()
	close(done)
	time.Sleep(restartPause)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == cmd {
		_ = p.launch() // it was started before
	}
}

// end signals the process and waits for its end.
func (p *process) end(signal syscall.Signal, within time.Duration) error {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.cmd = nil
	p.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Signal(signal); err != nil {
		<-done
		return nil // it had ended by itself
	}
	select {
	case <-done:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.err
	case <-time.After(within):
		return fmt.Errorf("still there %s after %s", within, signal)
	}
}

func (p *process) signal(signal syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("sending %s to a worker: %w", signal, err)
	}
	return nil
}

// kill ends the process as a power cut would.
func (p *process) kill() { _ = p.end(syscall.SIGKILL, time.Minute) }

// terminate ends the process by SIGTERM. It must exit cleanly in time, unless it is so young
// that it does not handle the signal yet.
func (p *process) terminate() error {
	err := p.end(syscall.SIGTERM, time.Minute)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signal() == syscall.SIGTERM {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("a worker did not stop cleanly: %w", err)
	}
	return nil
}
