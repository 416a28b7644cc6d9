package engines

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// Ports below the range from which operating systems take ports for outgoing connections and for listeners without a port
// of their own: nothing takes the port of a stopped engine by chance.
const (
	firstPort = 20000
	lastPort  = 29999
)

const loopback = "127.0.0.1"

// ports counts the ports that were tried, from a random number: claims get different ports, also before they listen.
var ports atomic.Uint32

func init() { ports.Store(rand.Uint32()) }

// portWait bounds the wait for a port. A child process holds a copy of a listener that was just closed until it has
// become the other program.
const portWait = time.Second

// listen listens on the given loopback port, or for 0 on a free one that stays available across a restart.
func listen(port int) (net.Listener, error) {
	return onPort(port, func(port int) (net.Listener, error) { return net.Listen("tcp", address(port)) })
}

// claimPort returns port, or a free one when it is 0, after it checked that it can be listened on.
func claimPort(port int) (int, error) {
	return onPort(port, func(port int) (int, error) { return port, tryPort(port) })
}

// onPort takes the given port, waiting a moment for it, or a free one when it is 0.
func onPort[T any](port int, take func(int) (T, error)) (T, error) {
	if port != 0 {
		for end := time.Now().Add(portWait); ; time.Sleep(10 * time.Millisecond) {
			taken, err := take(port)
			if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(end) {
				return taken, err
			}
		}
	}
	for range 100 {
		taken, err := take(firstPort + int(ports.Add(1)%(lastPort-firstPort+1)))
		if !errors.Is(err, syscall.EADDRINUSE) {
			return taken, err
		}
	}
	var none T
	return none, fmt.Errorf("no free port found between %d and %d", firstPort, lastPort)
}

// CheckPort reports why a loopback port can't be listened on, and does not wait for it.
func CheckPort(port int) error {
	err := tryPort(port)
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}

// FreeAddress returns a loopback address that can be listened on, now and after a restart.
func FreeAddress() (string, error) {
	port, err := claimPort(0)
	if err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	return address(port), nil
}

func address(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }
