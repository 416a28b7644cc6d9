//go:build !unix

package stack

import "os"

// lock does nothing where there is no lock that a crash releases.
func lock(string) (*os.File, error) { return nil, nil }
