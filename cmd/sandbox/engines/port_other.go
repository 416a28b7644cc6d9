//go:build !unix

package engines

import "net"

// tryPort checks that a loopback port can be listened on.
func tryPort(port int) error {
	ln, err := net.Listen("tcp", address(port))
	if err != nil {
		return err
	}
	return ln.Close()
}
