package stack

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/latchkey/latchkey/cmd/sandbox/http2peer"
)

// ServeMeshTLS serves the simulated Mesh at one more address, over TLS; the peer serves
// clients that speak HTTP/2. It writes the certificate to a file, for SSL_CERT_FILE.
func (s *Stack) ServeMeshTLS(peer *http2peer.Peer, certFile string) (url string, err error) {
	peer.Handler = s.Mesh
	server := httptest.NewUnstartedServer(s.Mesh)
	server.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	server.Config.ReadHeaderTimeout = 10 * time.Second
	server.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){"h2": peer.Serve}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it has a line for each client that leaves within a handshake
	server.StartTLS()
	s.servers = append(s.servers, server.Config)
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(certFile, certificate, 0o600); err != nil {
		return "", fmt.Errorf("writing a certificate: %w", err)
	}
	return server.URL, nil
}
