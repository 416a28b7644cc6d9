package worker

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// collectorTLS returns what OpenTelemetry's variables say about the certificates of a
// collector: an authority of its own, and the certificate to show it.
func collectorTLS(getenv func(string) string) (*tls.Config, error) {
	const general, ofTraces = "OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_TRACES_"
	value := func(name string) string { return cmp.Or(getenv(ofTraces+name), getenv(general+name)) }
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if path := value("CERTIFICATE"); path != "" {
		pem, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading %sCERTIFICATE: %w", general, err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%sCERTIFICATE names a file without a certificate", general)
		}
	}
	if path := value("CLIENT_CERTIFICATE"); path != "" {
		own, err := tls.LoadX509KeyPair(path, value("CLIENT_KEY"))
		if err != nil {
			return nil, fmt.Errorf("reading %sCLIENT_CERTIFICATE and CLIENT_KEY: %w", general, err)
		}
		c.Certificates = []tls.Certificate{own}
	}
	return c, nil
}
