package refresher

import (
	"crypto/x509"
	"net/http"
	"time"
)

// Uncalled is for tests of what a refresh that made no call does to the limits.
const Uncalled = uncalled

// MaxSending is how many outboxes are delivered in the background at once.
const MaxSending = maxSending

// Pause is the time until the next pass.
func (r *Reconciler) Pause() time.Duration { return r.pause() }

// Trust has a client take the certificates of a test's server.
func (m *Mesh) Trust(roots *x509.CertPool) {
	m.http.Transport.(*http.Transport).TLSClientConfig.RootCAs = roots
}
