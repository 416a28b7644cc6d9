//go:build unix

package main

import (
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// crashing returns a clock that panics after SIGUSR1, in whatever part of the worker reads
// it. SIGUSR2 ends the process by a panic that nothing recovers.
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
		if broken.Load() {
			panic("told to panic")
		}
		return now()
	}
}
