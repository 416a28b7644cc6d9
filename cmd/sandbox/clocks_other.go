//go:build !unix

package main

import "time"

// The clocks are as they are: there are no such signals here.

func crashing(now func() time.Time) func() time.Time { return now }

func stopping(now func() time.Time) func() time.Time { return now }
