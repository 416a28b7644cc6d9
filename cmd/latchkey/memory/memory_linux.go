package memory

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func guard(mode Mode) (Report, error) {
	// Only root could raise the hard limit again.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return Report{}, fmt.Errorf("turning off core dumps (RLIMIT_CORE): %w", err)
	}
	// The limit has no effect if the kernel pipes dumps to a program.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return Report{}, fmt.Errorf("turning off core dumps (PR_SET_DUMPABLE): %w", err)
	}
	r := Report{Dumps: "RLIMIT_CORE 0, not dumpable"}
	if mode == Off {
		r.Why = "off"
		return r, nil
	}
	if r.Why = unlockable(); r.Why == "" {
		// On fault: Go reserves many times the address space that it uses.
		if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
			r.Why = "mlockall: " + err.Error()
		}
	}
	r.Locked = r.Why == ""
	if mode == Required && !r.Locked {
		return r, fmt.Errorf("%w: %s", ErrLock, r.Why)
	}
	return r, nil
}

// unlockable says why locking all memory is refused or a risk; "" if it is neither. A
// limit counts reserved memory too, and allocations beyond it fail.
func unlockable() string {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return "RLIMIT_MEMLOCK: " + err.Error()
	}
	if limit.Cur == unix.RLIM_INFINITY || mayLock() {
		return ""
	}
	return "it takes the capability CAP_IPC_LOCK or an unlimited RLIMIT_MEMLOCK"
}

// mayLock reports whether the process has CAP_IPC_LOCK in effect.
func mayLock() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0
}
