//go:build unix

package main

import (
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// crashing returns a clock that panics after SIGUSR1, in whatever handler reads it: what else
// runs in the worker reads it as well, and recovers from nothing. SIGUSR2 ends the process by
// a panic that nothing recovers.
func crashing(now func() time.Time) func() time.Time {
	var broken atomic.Bool
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for s := range signals {
			if s == syscall.SIGUSR2 {
				panic("told to crash")
			}
			broken.Store(true)
		}
	}()
	return func() time.Time {
		if broken.Load() && handles() {
			panic("told to panic")
		}
		return now()
	}
}

// handles reports whether a handler of messages or token requests is among the callers.
func handles() bool {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		frame, more := frames.Next()
		if strings.Contains(frame.Function, "handlers.(*Router).guard") || strings.Contains(frame.Function, "handlers/tokens.(*answer).") {
			return true
		}
		if !more {
			return false
		}
	}
}

// stopping returns a clock that stops the process when a refresh that has its lease first
// reads the time before it calls Mesh. It returns after SIGCONT: SIGSTOP may reach another
// thread first, and this one would call meanwhile.
func stopping(now func() time.Time) func() time.Time {
	var done atomic.Bool
	return func() time.Time {
		if calls() && done.CompareAndSwap(false, true) {
			continued := make(chan os.Signal, 1)
			signal.Notify(continued, syscall.SIGCONT)
			_ = syscall.Kill(syscall.Getpid(), syscall.SIGSTOP) // a process may signal itself
			<-continued
		}
		return now()
	}
}

// calls reports whether the caller's caller is the part of a refresh that calls Mesh.
func calls() bool {
	var pc [1]uintptr
	runtime.Callers(3, pc[:])
	frame, _ := runtime.CallersFrames(pc[:]).Next()
	return strings.HasSuffix(frame.Function, "refresher.(*Refresher).call")
}
