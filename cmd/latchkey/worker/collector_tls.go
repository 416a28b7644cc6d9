package worker

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/latchkey/latchkey/cmd/latchkey/credentials"
)

// collectorTLS returns what OpenTelemetry's variables say about the certificates of a
// collector: an authority of its own, and the certificate to show it.
func collectorTLS(getenv func(string) string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if name, path := credentials.CollectorVariable(getenv, "CERTIFICATE"); path != "" {
		pem, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s names a file without a certificate", name)
		}
	}
	if name, path := credentials.CollectorVariable(getenv, "CLIENT_CERTIFICATE"); path != "" {
		_, key := credentials.CollectorVariable(getenv, "CLIENT_KEY")
		own, err := tls.LoadX509KeyPair(path, key)
		if err != nil {
			return nil, fmt.Errorf("reading %s and its CLIENT_KEY: %w", name, err)
		}
		c.Certificates = []tls.Certificate{own}
	}
	return c, nil
}
