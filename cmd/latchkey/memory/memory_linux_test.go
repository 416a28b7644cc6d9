package memory_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/latchkey/latchkey/cmd/latchkey/memory"
)

// state is what a process finds about itself after Guard.
type state struct {
	Report   memory.Report
	Err      string
	Core     unix.Rlimit
	Dumpable int
	Locked   bool // the kernel counts locked memory
	Grown    int  // bytes that could be allocated after it
}

const modeVariable, limitVariable = "MEMORY_TEST_MODE", "MEMORY_TEST_LIMIT"

// tuning is the mode in which a process only tunes its heap.
const tuning = "tune"

// TestMain is also the guarded process, when it is started as one.
func TestMain(m *testing.M) {
	mode := os.Getenv(modeVariable)
	if mode == "" {
		os.Exit(m.Run())
	}
	if mode == tuning {
		heap, err := memory.TuneHeap()
		fmt.Println(heap.Limit, debug.SetMemoryLimit(-1), heap.Room, err)
		return
	}
	if os.Getenv(limitVariable) != "" {
		runtime.LockOSThread() // a right is a thread's, and Guard must look at this one
		withoutTheRight()
	}
	var s state
	var err error
	if s.Report, err = memory.Guard(memory.Mode(mode)); err != nil {
		s.Err = err.Error()
	}
	_ = unix.Getrlimit(unix.RLIMIT_CORE, &s.Core)
	s.Dumpable, _ = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	var kept [][]byte
	for range 64 {
		kept = append(kept, make([]byte, 1<<20))
		for i := 0; i < 1<<20; i += 4096 {
			kept[len(kept)-1][i] = 1
		}
		s.Grown += 1 << 20
	}
	status, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmLck:"); ok {
			s.Locked = strings.TrimSpace(rest) != "0 kB"
		}
	}
	_ = json.NewEncoder(os.Stdout).Encode(s)
}

// withoutTheRight takes from this process what it takes to lock memory.
func withoutTheRight() {
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 1 << 16, Max: 1 << 16}); err != nil {
		panic(err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		panic(err)
	}
	data[0].Effective &^= 1 << unix.CAP_IPC_LOCK
	if err := unix.Capset(&header, &data[0]); err != nil {
		panic(err)
	}
}

func guarded(t *testing.T, mode memory.Mode, limited bool) state {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), modeVariable+"="+string(mode))
	if limited {
		cmd.Env = append(cmd.Env, limitVariable+"=1")
	}
	out, err := cmd.Output()
	require.NoError(t, err, "the process did not live: %s", out)
	var s state
	require.NoError(t, json.Unmarshal(out, &s), string(out))
	require.Zero(t, s.Core.Cur)
	require.Zero(t, s.Core.Max)
	require.Zero(t, s.Dumpable)
	require.NotEmpty(t, s.Report.Dumps)
	require.Equal(t, 64<<20, s.Grown)
	require.Equal(t, s.Report.Locked, s.Locked, "%+v", s)
	require.Equal(t, s.Report.Locked, s.Report.Why == "")
	return s
}

func TestDumpsAreOffWhateverTheMode(t *testing.T) {
	for _, mode := range []memory.Mode{memory.Auto, memory.Required, memory.Off} {
		for _, limited := range []bool{false, true} {
			t.Run(fmt.Sprint(mode, limited), func(t *testing.T) { guarded(t, mode, limited) })
		}
	}
}

func TestMemoryIsLockedOnlyWithoutRisk(t *testing.T) {
	auto := guarded(t, memory.Auto, true)
	require.False(t, auto.Report.Locked)
	require.Empty(t, auto.Err)
	require.Contains(t, auto.Report.Why, "CAP_IPC_LOCK")
	required := guarded(t, memory.Required, true)
	require.False(t, required.Report.Locked)
	require.Contains(t, required.Err, memory.ErrLock.Error())
	require.Contains(t, required.Err, "CAP_IPC_LOCK")
	require.False(t, guarded(t, memory.Off, false).Report.Locked)

	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit))
	if limit.Cur != unix.RLIM_INFINITY && os.Geteuid() != 0 {
		t.Skip("this machine does not let a test lock its memory")
	}
	if free := guarded(t, memory.Auto, false); !free.Report.Locked {
		t.Skip("this machine does not let a test lock its memory: " + free.Report.Why)
	}
	require.Empty(t, guarded(t, memory.Required, false).Err)
}

func TestTheHeapIsLimitedAsTheControlGroupIs(t *testing.T) {
	tuned := func(env ...string) string {
		t.Helper()
		exe, err := os.Executable()
		require.NoError(t, err)
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), append(env, modeVariable+"="+tuning)...)
		out, err := cmd.Output()
		require.NoError(t, err)
		return string(out)
	}
	unset(t, "GOGC")
	require.Equal(t, "104857600 104857600 true <nil>\n", tuned("GOMEMLIMIT=100MiB"), "GOMEMLIMIT goes before")
	require.Equal(t, "104857600 104857600 false <nil>\n", tuned("GOMEMLIMIT=100MiB", "GOGC=off"))
	unset(t, "GOMEMLIMIT")
	require.Equal(t, fmt.Sprintf("0 %d true <nil>\n", int64(math.MaxInt64)), tuned("AUTOMEMLIMIT=off"))
	want := fmt.Sprintf("0 %d true <nil>\n", int64(math.MaxInt64))
	if group, err := memlimit.FromCgroup(); err == nil {
		limit := int64(float64(group) * 0.9)
		want = fmt.Sprintf("%d %d true <nil>\n", limit, limit)
	}
	require.Equal(t, want, tuned())
}
