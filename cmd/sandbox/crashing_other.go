//go:build !unix

package main

import "time"

// crashing returns the clock as it is: there are no such signals here.
func crashing(now func() time.Time) func() time.Time { return now }
