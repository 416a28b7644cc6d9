package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/config"
)

func TestCredentials(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	dir := t.TempDir()
	cert, key, other := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "other.pem")
	write := func(path, kind string, der []byte) {
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	for _, path := range []string{other, key} { // the certificate is of the last
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		der, err := x509.MarshalPKCS8PrivateKey(k)
		require.NoError(t, err)
		write(path, "PRIVATE KEY", der)
		template := x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: begin, NotAfter: begin.Add(100 * 24 * time.Hour)}
		der, err = x509.CreateCertificate(rand.Reader, &template, &template, k.Public(), k)
		require.NoError(t, err)
		write(cert, "CERTIFICATE", der)
	}
	examine := func(cfg config.Config, after time.Duration) Result {
		cfg.Worker.ClockSkew = 10 * time.Second
		d := &doctor{cfg: cfg, now: func() time.Time { return begin.Add(after) }}
		d.nats.open = func(context.Context) (*natsLink, error) { return nil, errors.New("away") }
		return d.credentials(t.Context())
	}
	const day = 24 * time.Hour
	pair := config.Config{NATS: config.NATS{CertFile: cert, KeyFile: key}}
	found(t, examine(config.Config{}, 0), OK, "none that ends")
	found(t, examine(pair, 0), OK, "nats.cert_file until 2026-06-09")
	found(t, examine(pair, -time.Second), OK, "until") // clocks differ
	found(t, examine(pair, -time.Minute), Failed, "begins only at 2026-03-01T12:00:00Z")
	found(t, examine(pair, 89*day), OK, "until")
	found(t, examine(pair, 91*day), Warning, "nats.cert_file ends on 2026-06-09T12:00:00Z")
	found(t, examine(pair, 100*day), Failed, "nats.cert_file ended on 2026-06-09")
	found(t, examine(config.Config{NATS: config.NATS{CertFile: cert, KeyFile: other}}, 0), Failed, "nats.cert_file and its key_file are no pair")
	both := examine(config.Config{NATS: config.NATS{CertFile: cert, KeyFile: other}}, 100*day)
	found(t, both, Failed, "nats.cert_file ended on 2026-06-09")
	found(t, both, Failed, "nats.cert_file and its key_file are no pair")
	found(t, examine(config.Config{Admin: config.Admin{CertFile: cert, KeyFile: other}}, 0), Failed, "admin.cert_file and its key_file are no pair")
	gone := examine(config.Config{NATS: config.NATS{CertFile: dir + "/gone", KeyFile: key, CAFile: cert}}, 91*day)
	found(t, gone, Failed, "nats.cert_file can't be read: open "+dir+"/gone: no such file or directory; nats.ca_file ends on")
	require.NotContains(t, gone.Detail, "pair", "one fault is told once")

	creds := filepath.Join(dir, "worker.creds")
	require.NoError(t, os.WriteFile(creds, []byte("-----BEGIN NATS USER JWT-----\ne30.e30.e30\n------END NATS USER JWT------\n"), 0o600))
	found(t, examine(config.Config{NATS: config.NATS{CredsFile: creds}}, 0), OK, "nats.creds_file without end")
}
