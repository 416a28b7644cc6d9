package worker_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheAdminCertificateIsReadAnew: a renewed certificate is shown without a restart, and
// one that can't be read does not take the last one away.
func TestTheAdminCertificateIsReadAnew(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	cert, key, pool := selfSigned(t)
	h.worker("LATCHKEY_ADMIN_LISTEN=127.0.0.1:0", "LATCHKEY_ADMIN_CERT_FILE="+cert, "LATCHKEY_ADMIN_KEY_FILE="+key)
	base := strings.Replace(h.reader().base, "http://", "https://", 1)
	// Each call shakes hands anew.
	trusts := func(pool *x509.CertPool) error {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
		res, err := client.Get(base + "/healthz")
		if err == nil {
			require.Equal(t, http.StatusOK, res.StatusCode)
			require.NoError(t, res.Body.Close())
		}
		return err
	}
	replace := func(path, with string) {
		content, err := os.ReadFile(with)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, content, 0o600))
	}
	require.NoError(t, trusts(pool))

	newCert, newKey, newPool := selfSigned(t)
	replace(cert, newCert) // and the key not yet
	require.NoError(t, trusts(pool))
	require.NoError(t, trusts(pool))
	const unread = "admin.cert_file and admin.key_file can't be read; the last certificate is used"
	require.Equal(t, 1, strings.Count(h.logs.String(), unread))
	replace(key, newKey)
	require.NoError(t, trusts(newPool))
	require.Error(t, trusts(pool))

	require.NoError(t, os.Remove(cert))
	require.NoError(t, trusts(newPool))
	require.Equal(t, 2, strings.Count(h.logs.String(), unread))
}
