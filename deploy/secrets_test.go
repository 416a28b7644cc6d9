package deploy_test

import (
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// trial is a copy of the scripts, with a program in place of Go that makes nkeys.
type trial struct {
	*testing.T
	dir string
}

func newTrial(t *testing.T) trial {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	tr := trial{t, t.TempDir()}
	for from, to := range map[string]string{"secrets.sh": "deploy/secrets.sh", "nats/certs.sh": "deploy/nats/certs.sh"} {
		path := filepath.Join(tr.dir, to)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(read(t, from)), 0o700))
	}
	tr.write("bin/go", "#!/bin/sh\ncase \"$*\" in *-pubout*) echo UPUBLIC ;; *) echo SUSEED ;; esac\n")
	return tr
}

func (tr trial) write(path, content string) {
	path = filepath.Join(tr.dir, path)
	require.NoError(tr, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(tr, os.WriteFile(path, []byte(content), 0o700))
}

func (tr trial) run(script string, args ...string) (string, error) {
	cmd := exec.Command("sh", append([]string{filepath.Join(tr.dir, "deploy", script)}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+tr.dir+"/bin:"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (tr trial) secrets() string {
	out, err := tr.run("secrets.sh")
	require.NoError(tr, err, out)
	return out
}

func (tr trial) secret(name string) string {
	return read(tr.T, filepath.Join(tr.dir, "deploy/secrets", name))
}

func (tr trial) certificate(name string) *x509.Certificate {
	block, _ := pem.Decode([]byte(tr.secret(name + ".pem")))
	require.NotNil(tr, block, name)
	c, err := x509.ParseCertificate(block.Bytes)
	require.NoError(tr, err)
	return c
}

var certificates = []string{"ca", "server", "worker", "operator", "publisher", "reader", "observer"}

// TestSecretsOfCompose: all files that the compose file names, certificates that
// last, and nothing made anew the second time.
func TestSecretsOfCompose(t *testing.T) {
	t.Parallel()
	tr := newTrial(t)
	require.Contains(t, tr.secrets(), "mesh-client-secret is empty")
	for _, m := range regexp.MustCompile(`file: secrets/(\S+) }`).FindAllStringSubmatch(read(t, "compose.yaml"), -1) {
		require.FileExists(t, filepath.Join(tr.dir, "deploy/secrets", m[1]))
	}
	require.Regexp(t, `^[!-~]{16,}$`, tr.secret("admin-token"))
	for _, name := range certificates {
		require.Greater(t, time.Until(tr.certificate(name).NotAfter), 9*365*24*time.Hour, name)
	}
	// The server's variables are none of the worker's, and those that it is given.
	wanted := regexp.MustCompile(`\$(\w+_NKEY|\w+_STORE_KEY)\b`).FindAllStringSubmatch(read(t, "nats/nkeys.conf")+read(t, "nats/server.conf"), -1)
	require.Len(t, wanted, 6)
	for _, m := range wanted {
		require.Contains(t, "\n"+tr.secret("nats.env"), "\n"+m[1]+"=")
	}
	require.NotContains(t, tr.secret("nats.env"), "LATCHKEY_")

	before := tr.all()
	require.NotContains(t, tr.secrets(), "certificates are new")
	require.Equal(t, before, tr.all())
}

// all returns the content of every secret.
func (tr trial) all() map[string]string {
	all := map[string]string{}
	dir := filepath.Join(tr.dir, "deploy/secrets")
	require.NoError(tr, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all[d.Name()] = read(tr.T, path)
		}
		return err
	}))
	return all
}

// TestCertificatesAreRenewed: those that the script of an earlier release made for 30
// days become such as last, and old and new trust each other meanwhile.
func TestCertificatesAreRenewed(t *testing.T) {
	t.Parallel()
	tr := newTrial(t)
	out, err := tr.run("nats/certs.sh", filepath.Join(tr.dir, "deploy/secrets"), "nats")
	require.NoError(t, err, out)
	tr.write("deploy/secrets/nats.env", "LATCHKEY_NATS_STORE_KEY=xkey\nLATCHKEY_WORKER_NKEY=UOLD\n")
	old := map[string]*x509.Certificate{}
	for _, name := range certificates {
		old[name] = tr.certificate(name)
		require.Less(t, time.Until(old[name].NotAfter), 31*24*time.Hour)
	}
	mounted, err := os.Stat(filepath.Join(tr.dir, "deploy/secrets/server.pem"))
	require.NoError(t, err)
	require.Contains(t, tr.secrets(), "certificates are new")
	require.Equal(t, "NATS_SERVER_STORE_KEY=xkey\nNATS_SERVER_WORKER_NKEY=UOLD\n", tr.secret("nats.env"), "with another key NATS hides its streams")
	after, err := os.Stat(filepath.Join(tr.dir, "deploy/secrets/server.pem"))
	require.NoError(t, err)
	require.True(t, os.SameFile(mounted, after), "a container would go on with the old one")

	verifies := func(authority, c *x509.Certificate) {
		t.Helper()
		pool := x509.NewCertPool()
		pool.AddCert(authority)
		_, err := c.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		require.NoError(t, err)
	}
	for _, name := range certificates {
		renewed := tr.certificate(name)
		require.Greater(t, time.Until(renewed.NotAfter), 9*365*24*time.Hour, name)
		if name == "ca" {
			continue
		}
		verifies(old["ca"], renewed)
		verifies(tr.certificate("ca"), old[name])
	}
}

// TestCertificatesOfAnotherAuthority are left alone.
func TestCertificatesOfAnotherAuthority(t *testing.T) {
	t.Parallel()
	tr := newTrial(t)
	tr.write("deploy/secrets/ca.pem", "theirs")
	tr.write("deploy/secrets/server.pem", "theirs")
	require.NotContains(t, tr.secrets(), "certificates are new")
	require.Equal(t, "theirs", tr.secret("ca.pem"))
	require.Equal(t, "theirs", tr.secret("server.pem"))
	out, err := tr.run("nats/certs.sh", filepath.Join(tr.dir, "deploy/secrets"))
	require.Error(t, err)
	require.Contains(t, out, "without ca.key")
}

// TestVariablesOfOthersLackTheWorkersPrefix: what begins with LATCHKEY_ and is no
// setting keeps a worker from starting.
func TestVariablesOfOthersLackTheWorkersPrefix(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("nats/*")
	require.NoError(t, err)
	for _, path := range append(files, ".env.example") {
		if info, err := os.Stat(path); err != nil || info.IsDir() || strings.HasSuffix(path, ".md") {
			continue
		}
		require.NotRegexp(t, `\$\{?LATCHKEY_|(?m)^LATCHKEY_`, read(t, path), path)
	}
}
