package engines

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// Ports below the range from which operating systems take the ports of outgoing connections and of listeners that ask
// for any port. A stopped engine must get its own port back; from here nobody is handed it meanwhile by chance.
const (
	firstPort = 20000
	lastPort  = 29999
)

const loopback = "127.0.0.1"

// listen listens on the given loopback port, or on a free one that stays available across a restart when port is 0.
func listen(port int) (net.Listener, error) {
	if port != 0 {
		return net.Listen("tcp", address(port))
	}
	for range 100 {
		ln, err := net.Listen("tcp", address(firstPort+rand.IntN(lastPort-firstPort+1)))
		if !errors.Is(err, syscall.EADDRINUSE) {
			return ln, err
		}
	}
	return nil, fmt.Errorf("no free port found between %d and %d", firstPort, lastPort)
}

// claimPort returns port, or a free one when it is 0, having made sure that it can be listened on.
func claimPort(port int) (int, error) {
	ln, err := listen(port)
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
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
