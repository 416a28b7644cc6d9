//go:build unix

package engines

import (
	"fmt"
	"net/netip"
	"os"
	"syscall"
)

// tryPort checks that a loopback port can be listened on. It binds and does not listen: a child process that starts
// meanwhile inherits the socket, and a copy that listens would hold the port after this one is closed.
func tryPort(port int) error {
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return fmt.Errorf("trying port %d: %w", port, os.NewSyscallError("socket", err))
	}
	defer func() { _ = syscall.Close(fd) }()
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return fmt.Errorf("trying port %d: %w", port, os.NewSyscallError("setsockopt", err))
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: netip.MustParseAddr(loopback).As4()}); err != nil {
		return fmt.Errorf("trying port %d: %w", port, os.NewSyscallError("bind", err))
	}
	return nil
}
