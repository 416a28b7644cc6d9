package worker_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"
)

// trust is an operator with the accounts that he signed.
type trust struct {
	t       *testing.T
	dir     string
	account string
	signers map[string]nkeys.KeyPair // by role
}

func keyPair(t *testing.T, create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
	t.Helper()
	pair, err := create()
	require.NoError(t, err)
	public, err := pair.PublicKey()
	require.NoError(t, err)
	return pair, public
}

// newTrust makes what deploy/nats/jwt.sh has nsc make: an operator, a system
// account, and the account LATCHKEY with JetStream.
func newTrust(t *testing.T) *trust {
	t.Helper()
	tr := &trust{t: t, dir: t.TempDir(), signers: map[string]nkeys.KeyPair{}}
	operator, operatorSubject := keyPair(t, nkeys.CreateOperator)
	_, system := keyPair(t, nkeys.CreateAccount)
	_, tr.account = keyPair(t, nkeys.CreateAccount)

	claims := jwt.NewOperatorClaims(operatorSubject)
	claims.Name, claims.SystemAccount = "latchkey", system
	operatorJWT, err := claims.Encode(operator)
	require.NoError(t, err)
	systemJWT, err := jwt.NewAccountClaims(system).Encode(operator)
	require.NoError(t, err)
	account := jwt.NewAccountClaims(tr.account)
	account.Name = "LATCHKEY"
	account.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	for _, role := range roles {
		signer, signerSubject := keyPair(t, nkeys.CreateAccount)
		tr.signers[role] = signer
		may := permissionsOf(t, role)
		scope := jwt.NewUserScope()
		scope.Key, scope.Role = signerSubject, role
		scope.Template.Permissions = jwt.Permissions{Pub: jwt.Permission{Allow: may.Publish}, Sub: jwt.Permission{Allow: may.Subscribe}}
		if may.Responses {
			scope.Template.Resp = &jwt.ResponsePermission{MaxMsgs: 1, Expires: time.Minute}
		}
		account.SigningKeys.AddScopedSigner(scope)
	}
	accountJWT, err := account.Encode(operator)
	require.NoError(t, err)

	resolver := fmt.Sprintf("operator: %q\nsystem_account: %s\nresolver: MEMORY\nresolver_preload: {\n  %s: %q\n  %s: %q\n}\n",
		operatorJWT, system, system, systemJWT, tr.account, accountJWT)
	common, err := os.ReadFile(filepath.Join(deployNATS, "server.conf"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(tr.conf(), append(common, resolver...), 0o600))
	return tr
}

func (tr *trust) conf() string { return filepath.Join(tr.dir, "jwt.conf") }

// prove makes a user of a role, and his credentials.
func (tr *trust) prove(role string) (server map[string]string, client []string) {
	tr.t.Helper()
	pair, public := keyPair(tr.t, nkeys.CreateUser)
	claims := jwt.NewUserClaims(public)
	claims.Name = role
	claims.IssuerAccount = tr.account
	claims.SetScoped(true)
	encoded, err := claims.Encode(tr.signers[role])
	require.NoError(tr.t, err)
	seed, err := pair.Seed()
	require.NoError(tr.t, err)
	creds, err := jwt.FormatUserConfig(encoded, seed)
	require.NoError(tr.t, err)
	path := filepath.Join(tr.dir, role+".creds")
	require.NoError(tr.t, os.WriteFile(path, creds, 0o600))
	return nil, []string{"LATCHKEY_NATS_CREDS_FILE=" + path}
}

func TestCallersWithCredentials(t *testing.T) {
	t.Parallel()
	tr := newTrust(t)
	c := startCallers(t, tr.conf(), tr.prove)
	c.everybodyDoesWhatTheyMay()
	c.nobodyDoesWhatTheyMayNot()
	c.strangersGetNowhere()
}

// TestCallersWithCredentialsOfNSC does the same with what the script makes.
func TestCallersWithCredentialsOfNSC(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("nsc"); err != nil {
		t.Skip("nsc is not installed")
	}
	dir := t.TempDir()
	out, err := exec.Command("sh", filepath.Join(deployNATS, "jwt.sh"), dir).CombinedOutput()
	require.NoError(t, err, string(out))
	c := startCallers(t, filepath.Join(dir, "jwt.conf"), func(role string) (map[string]string, []string) {
		return nil, []string{"LATCHKEY_NATS_CREDS_FILE=" + filepath.Join(dir, "creds", role+".creds")}
	})
	c.everybodyDoesWhatTheyMay()
	c.nobodyDoesWhatTheyMayNot()
}

// TestTheScriptGivesNSCThePermissionsOfTheRoles puts a program in place of nsc
// that writes down what it is told.
func TestTheScriptGivesNSCThePermissionsOfTheRoles(t *testing.T) {
	t.Parallel()
	bin, dir := t.TempDir(), t.TempDir()
	told := filepath.Join(bin, "told")
	stub := "#!/bin/sh\nfor arg in \"$@\"; do printf '%s\\n' \"$arg\" >>'" + told + "'; done\necho end >>'" + told + "'\n"
	require.NoError(t, os.WriteFile(filepath.Join(bin, "nsc"), []byte(stub), 0o700))
	cmd := exec.Command("sh", filepath.Join(deployNATS, "jwt.sh"), dir)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), dir+"/creds/ROLE.creds")
	content, err := os.ReadFile(told)
	require.NoError(t, err)
	for _, role := range roles {
		may := permissionsOf(t, role)
		want := []string{
			"edit", "signing-key", "--account", "LATCHKEY", "--sk", "generate", "--role", role,
			"--allow-pub", strings.Join(may.Publish, ","), "--allow-sub", strings.Join(may.Subscribe, ","),
		}
		if may.Responses {
			want = append(want, "--allow-pub-response=1", "--response-ttl", "1m")
		}
		require.Contains(t, string(content), strings.Join(want, "\n")+"\nend\n", role)
		require.Contains(t, string(content), "add\nuser\n--account\nLATCHKEY\n--name\n"+role+"\n-K\n"+role+"\nend\n")
	}
}

// TestTrialCertificates has a server and a client use what the script makes.
func TestTrialCertificates(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	dir := t.TempDir()
	out, err := exec.Command("sh", filepath.Join(deployNATS, "certs.sh"), dir).CombinedOutput()
	require.NoError(t, err, string(out))
	tr := newTrust(t)
	_, client := tr.prove("reader")
	url := serveNATS(t, tr.conf(), map[string]string{
		"NATS_SERVER_LISTEN": "127.0.0.1:-1", "NATS_SERVER_STORE": t.TempDir(), "NATS_SERVER_STORE_KEY": "store_key_of_a_test",
		"NATS_SERVER_CERT": dir + "/server.pem", "NATS_SERVER_KEY": dir + "/server.key", "NATS_SERVER_CA": dir + "/ca.pem",
	})
	connectsWith := func(name string) error {
		nc, err := connectFrom(append(client, "LATCHKEY_NATS_URL="+url, "LATCHKEY_NATS_CA_FILE="+dir+"/ca.pem",
			"LATCHKEY_NATS_CERT_FILE="+dir+"/"+name+".pem", "LATCHKEY_NATS_KEY_FILE="+dir+"/"+name+".key"))
		if err == nil {
			nc.Close()
		}
		return err
	}
	require.NoError(t, connectsWith("reader"))
	require.Error(t, connectsWith("server"), "a server's certificate is none of a client's")
	info, err := os.Stat(dir + "/worker.key")
	require.NoError(t, err)
	require.Zero(t, info.Mode().Perm()&0o077)
}
