//go:build !unix

package main

import "time"

// stopping returns the clock as it is: there is no such signal here.
func stopping(now func() time.Time) func() time.Time { return now }
