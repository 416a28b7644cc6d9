//go:build !unix

package engines

import "os/exec"

// runAsPostgres does nothing where there is no root to come from.
func runAsPostgres(*exec.Cmd, string) error { return nil }
