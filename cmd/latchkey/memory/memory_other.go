//go:build !linux

package memory

import "fmt"

const unsupported = "only done on Linux"

func guard(mode Mode) (Report, error) {
	if mode == Required {
		return Report{Why: unsupported}, fmt.Errorf("%w: %s", ErrLock, unsupported)
	}
	return Report{Why: unsupported}, nil
}
