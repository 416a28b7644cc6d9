package doctor

import (
	"context"
	"runtime"

	"github.com/latchkey/latchkey/cmd/latchkey/memory"
)

// memory guards the memory of this process as a worker would.
func (d *doctor) memory(context.Context) Result {
	const do = "give the worker the capability IPC_LOCK or an unlimited RLIMIT_MEMLOCK (LimitMEMLOCK=infinity), or encrypt swap; see docs/security.md"
	mode := memory.Mode(d.cfg.Worker.LockMemory)
	report, err := memory.Guard(mode)
	switch {
	case err != nil:
		return failed(do, "worker.lock_memory is %s: %v", mode, err)
	case report.Dumps == "":
		return warning("run workers on Linux", "on %s nothing keeps core dumps away", runtime.GOOS)
	case report.Locked:
		return ok("no core dumps (%s), locked against swap", report.Dumps)
	case mode == memory.Off:
		return ok("no core dumps (%s); not locked against swap, as worker.lock_memory says", report.Dumps)
	}
	return warning(do, "no core dumps (%s); not locked against swap: %s", report.Dumps, report.Why)
}
