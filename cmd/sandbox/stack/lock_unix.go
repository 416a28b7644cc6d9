//go:build unix

package stack

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// lock takes a folder for this process alone, until the file is closed or the process ends.
func lock(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the folder for all data: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder := "another process"
		if text, readErr := io.ReadAll(io.LimitReader(file, 20)); readErr == nil && strings.TrimSpace(string(text)) != "" {
			holder = "process " + strings.TrimSpace(string(text))
		}
		err = fmt.Errorf("%w: %s holds %s; stop it, or use another folder", ErrInUse, holder, path)
	}
	if err == nil {
		err = file.Truncate(0)
	}
	if err == nil {
		_, err = file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("locking the folder for all data: %w", err)
	}
	return file, nil
}
