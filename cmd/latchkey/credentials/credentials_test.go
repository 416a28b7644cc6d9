package credentials_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/credentials"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events/secret"
)

var begin = time.Unix(1_700_000_000, 0)

const day = 24 * time.Hour

// certificate returns a PEM block of a certificate that begins at begin.
func certificate(t *testing.T, validity time.Duration) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: begin, NotAfter: begin.Add(validity)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func jwt(claims string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

func creds(jwt string) string {
	return "-----BEGIN NATS USER JWT-----\n" + jwt + "\n------END NATS USER JWT------\n"
}

const anotherKey = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"

// file writes a file and returns its path.
func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a file & more")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestWhenEachKindEnds(t *testing.T) {
	t.Parallel()
	short, long := certificate(t, day), certificate(t, 300*day)
	expiring := jwt(fmt.Sprintf(`{"iat":%d,"exp":%d}`, begin.Unix(), begin.Add(day).Unix()))
	nats := func(n config.NATS) config.Config { return config.Config{NATS: n} }
	mongo := func(format, content string) config.Config {
		path := strings.NewReplacer(" ", "%20", "&", "%26").Replace(file(t, content))
		return config.Config{MongoDB: config.MongoDB{URI: secret.New(fmt.Sprintf("mongodb://u:p%%40@a,b/db?tls=true"+format+"&w=1", path))}}
	}
	traced := config.Config{Tracing: config.Tracing{Endpoint: "https://collector"}}
	for name, c := range map[string]struct {
		cfg      config.Config
		environ  []string
		setting  string
		validity time.Duration // 0: no end
	}{
		"the first of a chain ends":        {nats(config.NATS{CertFile: file(t, long+anotherKey+short)}), nil, "nats.cert_file", day},
		"the last authority ends":          {nats(config.NATS{CAFile: file(t, short+long)}), nil, "nats.ca_file", 300 * day},
		"NATS credentials":                 {nats(config.NATS{CredsFile: file(t, creds(expiring))}), nil, "nats.creds_file", day},
		"NATS credentials without end":     {nats(config.NATS{CredsFile: file(t, creds(jwt(`{"iat":1700000000}`)))}), nil, "nats.creds_file", 0},
		"the admin listener's certificate": {config.Config{Admin: config.Admin{CertFile: file(t, short)}}, nil, "admin.cert_file", day},
		"MongoDB's client certificate":     {mongo("&tlsCertificateKeyFile=%s", anotherKey+short), nil, "mongodb.uri tlsCertificateKeyFile", day},
		"the same, by its older name":      {mongo(";sslClientCertificateKeyFile=%s", short), nil, "mongodb.uri tlsCertificateKeyFile", day},
		"the same, apart from its key":     {mongo("&tlsCertificateFile=%s&tlsPrivateKeyFile=x", short), nil, "mongodb.uri tlsCertificateFile", day},
		"MongoDB's authorities":            {mongo("&TLSCAFILE=%s", long), nil, "mongodb.uri tlsCAFile", 300 * day},
		"the token of a web identity":      {config.Config{}, []string{"AWS_WEB_IDENTITY_TOKEN_FILE=x", "AWS_WEB_IDENTITY_TOKEN_FILE=" + file(t, expiring+"\n")}, "AWS_WEB_IDENTITY_TOKEN_FILE", day},
		"the token of a pod identity":      {config.Config{}, []string{"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=" + file(t, expiring)}, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", day},
		"the collector's authority":        {traced, []string{"OTEL_EXPORTER_OTLP_CERTIFICATE=" + file(t, short)}, "OTEL_EXPORTER_OTLP_CERTIFICATE", day},
		"what the collector is shown":      {traced, []string{"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=x", "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE=" + file(t, short)}, "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", day},
		"AWS's authorities":                {config.Config{}, []string{"AWS_CA_BUNDLE=" + file(t, short)}, "AWS_CA_BUNDLE", day},
	} {
		files := credentials.Of(c.cfg, c.environ)
		require.Len(t, files, 1, name)
		require.Equal(t, c.setting, files[0].Name, name)
		validity, err := files[0].Validity()
		require.NoError(t, err, name)
		require.True(t, validity.Begins.Equal(begin), name)
		if c.validity == 0 {
			require.Zero(t, validity.Ends, name)
		} else {
			require.True(t, validity.Ends.Equal(begin.Add(c.validity)), name)
		}
	}
	plain, err := credentials.Of(config.Config{}, []string{"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=" + file(t, "Basic c2VjcmV0")})[0].Validity()
	require.NoError(t, err, "what is no JWT has no end")
	require.Zero(t, plain)
	require.Empty(t, credentials.Of(config.Default(), []string{"OTEL_EXPORTER_OTLP_CERTIFICATE=x"}), "what is not configured")
}

func TestWhatCanNotBeRead(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cfg  config.NATS
		text string
	}{
		"not there":           {config.NATS{CertFile: "/nonexistent/cert.pem"}, "no such file"},
		"a folder":            {config.NATS{CertFile: t.TempDir()}, "is a directory"},
		"no certificate":      {config.NATS{CertFile: file(t, anotherKey)}, "no certificate in it"},
		"a broken one":        {config.NATS{CAFile: file(t, "-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----\n")}, "can't be read"},
		"no credentials":      {config.NATS{CredsFile: file(t, "secret")}, "no JWT in it"},
		"no payload":          {config.NATS{CredsFile: file(t, creds("a.!.c"))}, "no JWT in it"},
		"no JSON in its body": {config.NATS{CredsFile: file(t, creds("a.c2VjcmV0.c"))}, "no JWT in it"},
	} {
		_, err := credentials.Of(config.Config{NATS: c.cfg}, nil)[0].Validity()
		require.ErrorContains(t, err, c.text, name)
		require.NotContains(t, err.Error(), "secret", name)
	}
}

func TestRenewBy(t *testing.T) {
	t.Parallel()
	for validity, before := range map[time.Duration]time.Duration{10 * time.Hour: time.Hour, 90 * day: 9 * day, 365 * day: 30 * day, 3650 * day: 30 * day} {
		require.Equal(t, before, begin.Add(validity).Sub(credentials.Validity{Begins: begin, Ends: begin.Add(validity)}.RenewBy()), validity)
	}
}

// TestMetrics: files are looked at for each scrape, but those that a worker reads
// once.
func TestMetrics(t *testing.T) {
	t.Parallel()
	cert, mongo, endless := file(t, certificate(t, day)), filepath.Join(t.TempDir(), "ca.pem"), file(t, creds(jwt(`{}`)))
	require.NoError(t, os.WriteFile(mongo, []byte(certificate(t, 2*day)), 0o600))
	cfg := config.Config{NATS: config.NATS{CertFile: cert, CredsFile: endless}, MongoDB: config.MongoDB{URI: secret.New("mongodb://a/?tlsCAFile=" + mongo)}}
	watched := credentials.Watch(credentials.Of(cfg, nil))
	expect := func(nats, natsRenewBy int64) {
		t.Helper()
		require.NoError(t, testutil.CollectAndCompare(watched, strings.NewReader(fmt.Sprintf(`
# HELP latchkey_credential_ends_seconds Unix time at which a certificate or credential ends; 0 when it can't be read.
# TYPE latchkey_credential_ends_seconds gauge
latchkey_credential_ends_seconds{credential="mongodb.uri tlsCAFile"} %d
latchkey_credential_ends_seconds{credential="nats.cert_file"} %d
# HELP latchkey_credential_renew_by_seconds Unix time by which it should have been renewed; 0 when it can't be read.
# TYPE latchkey_credential_renew_by_seconds gauge
latchkey_credential_renew_by_seconds{credential="mongodb.uri tlsCAFile"} %d
latchkey_credential_renew_by_seconds{credential="nats.cert_file"} %d
`, begin.Add(2*day).Unix(), nats, begin.Add(2*day-2*day/10).Unix(), natsRenewBy))))
	}
	expect(begin.Add(day).Unix(), begin.Add(day-day/10).Unix())
	require.NoError(t, os.WriteFile(cert, []byte(certificate(t, 10*day)), 0o600))
	require.NoError(t, os.WriteFile(mongo, []byte(certificate(t, 10*day)), 0o600))
	expect(begin.Add(10*day).Unix(), begin.Add(9*day).Unix())
	require.NoError(t, os.Remove(cert))
	expect(0, 0)
}
