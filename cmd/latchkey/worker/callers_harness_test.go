package worker_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/conf"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
)

// deployNATS holds the configuration that is given to operators.
const deployNATS = "../../../deploy/nats"

// roles are those of the files in deploy/nats/roles.
var roles = []string{"worker", "operator", "publisher", "reader", "observer"}

// inboxOf is the inbox prefix that a role's permissions name.
func inboxOf(role string) string {
	if role == "worker" {
		return "_INBOX_latchkey"
	}
	return "_INBOX_" + role
}

// callers are a server with one of the configurations in deploy/nats, the other
// engines, and what each role needs to connect.
type callers struct {
	*harness
	url string
	ca  *authority
	// observerAPI is the prefix of the JetStream API for the observer, and
	// observerRole its file.
	observerAPI, observerRole string
	certs                     map[string][2]string // by role: certificate and key
	proofs                    map[string][]string  // by role: variables with the nkey or the credentials
}

// proof makes what a role authenticates with: variables for the server's
// configuration and for the client's.
type proof func(role string) (server map[string]string, client []string)

func nkeyProof(t *testing.T) proof {
	return func(role string) (map[string]string, []string) {
		pair, err := nkeys.CreateUser()
		require.NoError(t, err)
		public, err := pair.PublicKey()
		require.NoError(t, err)
		seed, err := pair.Seed()
		require.NoError(t, err)
		return map[string]string{"NATS_SERVER_" + strings.ToUpper(role) + "_NKEY": public}, []string{"LATCHKEY_NATS_NKEY_SEED=" + string(seed)}
	}
}

// startCallers starts a server with a configuration file, and the other engines.
func startCallers(t *testing.T, file string, prove proof) *callers {
	t.Helper()
	if os.Getenv(enginestest.NATSVariable) != "" {
		t.Skip("needs a server with a configuration of its own")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	h := &harness{t, &installation{ctx: ctx, dir: t.TempDir(), logs: &enginestest.Text{}, more: make(chan struct{}), ids: map[string]bool{}, database: enginestest.Name(t)}}
	c := &callers{harness: h, observerAPI: "$JS.API", observerRole: "observer", ca: newAuthority(t), certs: map[string][2]string{}, proofs: map[string][]string{}}
	cert, key := c.ca.issue("server")
	env := map[string]string{
		"NATS_SERVER_LISTEN": "127.0.0.1:-1", "NATS_SERVER_CERT": cert, "NATS_SERVER_KEY": key, "NATS_SERVER_CA": c.ca.ca(),
		"NATS_SERVER_STORE": filepath.Join(h.dir, "nats"), "NATS_SERVER_STORE_KEY": "store_key_of_a_test",
	}
	for _, role := range roles {
		cert, key := c.ca.issue(role)
		c.certs[role] = [2]string{cert, key}
		more, client := prove(role)
		c.proofs[role] = client
		for name, value := range more {
			env[name] = value
		}
	}
	c.url = serveNATS(t, file, env)

	var err error
	h.stack, err = stack.Start(stack.Options{
		Dir: h.dir, NATSURL: c.url, MongoDBURI: os.Getenv(enginestest.MongoDBVariable),
		Institutions: map[string]meshsim.Institution{"graceful": {AccessLifetime: life, RefreshLifetime: 24 * life, Grace: time.Hour}},
	})
	require.NoError(t, err)
	t.Cleanup(h.stack.Stop)
	t.Cleanup(func() {
		if h.client != nil {
			_ = h.client.Disconnect(ctx) // the server may be stopped already
		}
		if t.Failed() {
			t.Log(h.logs.String())
		}
	})
	return c
}

// configuring guards the environment, which nats-server reads its variables from.
var configuring sync.Mutex

// serveNATS runs nats-server as if it were started with a configuration file in
// an environment, and returns its address.
func serveNATS(t *testing.T, file string, env map[string]string) string {
	t.Helper()
	configuring.Lock()
	for name, value := range env {
		require.NoError(t, os.Setenv(name, value)) //nolint:usetesting // for as long as the file is read only
	}
	o, err := server.ProcessConfigFile(file)
	for name := range env {
		require.NoError(t, os.Unsetenv(name))
	}
	configuring.Unlock()
	require.NoError(t, err)
	o.NoSigs, o.NoLog, o.DisableJetStreamBanner = true, true, true
	s, err := server.NewServer(o)
	require.NoError(t, err)
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	require.True(t, s.ReadyForConnections(patience))
	return strings.Replace(s.ClientURL(), "nats://", "tls://", 1)
}

// settingsOf are the variables with which a role connects.
func (c *callers) settingsOf(role string) []string {
	return append([]string{
		"LATCHKEY_NATS_CA_FILE=" + c.ca.ca(), "LATCHKEY_NATS_CERT_FILE=" + c.certs[role][0], "LATCHKEY_NATS_KEY_FILE=" + c.certs[role][1],
		"LATCHKEY_NATS_INBOX_PREFIX=" + inboxOf(role),
	}, c.proofs[role]...)
}

// caller is a connected client that knows what it was refused.
type caller struct {
	t *testing.T
	*nats.Conn
	js      jetstream.JetStream
	refused chan error
}

// as connects as a role does.
func (c *callers) as(role string) *caller {
	c.t.Helper()
	cfg, err := c.stack.Config(c.settings(c.settingsOf(role)...)...)
	require.NoError(c.t, err)
	nc, err := worker.Connect(cfg.NATS, role, zap.NewNop())
	require.NoError(c.t, err)
	c.t.Cleanup(nc.Close)
	out := &caller{t: c.t, Conn: nc, refused: make(chan error, 1024)}
	nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { out.refused <- err })
	out.js, err = jetstream.New(nc)
	require.NoError(c.t, err)
	return out
}

// refuses does something and expects the server to refuse it by permission.
func (c *caller) refuses(what, subject string, do func() error) {
	c.t.Helper()
	require.NoError(c.t, do(), "%s %s", what, subject)
	require.NoError(c.t, c.Flush())
	select {
	case err := <-c.refused:
		require.ErrorIs(c.t, err, nats.ErrPermissionViolation, "%s %s", what, subject)
		require.Contains(c.t, err.Error(), `"`+subject+`"`, what)
	case <-time.After(patience):
		c.t.Fatalf("%s %s is not refused", what, subject)
	}
}

// mayNot expects that the caller may neither publish nor subscribe to subjects.
func (c *caller) mayNot(publish, subscribe []string) {
	c.t.Helper()
	for _, subject := range publish {
		c.refuses("Publish to", subject, func() error { return c.PublishRequest(subject, c.NewInbox(), []byte(`{"userId":"alice"}`)) })
	}
	for _, subject := range subscribe {
		c.refuses("Subscription to", subject, func() error { _, err := c.SubscribeSync(subject); return err })
		c.refuses("Subscription to", subject, func() error { _, err := c.QueueSubscribeSync(subject, "latchkey-tokens"); return err })
	}
}

// permissions are those of a role's file.
type permissions struct {
	Publish, Subscribe []string
	Responses          bool
}

func (c *callers) permissionsOf(role string) permissions {
	if role == "observer" {
		role = c.observerRole
	}
	return permissionsOf(c.t, role)
}

func permissionsOf(t *testing.T, role string) permissions {
	t.Helper()
	parsed, err := conf.ParseFile(filepath.Join(deployNATS, "roles", role+".conf"))
	require.NoError(t, err)
	texts := func(v any) (out []string) {
		for _, s := range v.([]any) {
			out = append(out, s.(string))
		}
		return out
	}
	_, responses := parsed["allow_responses"]
	return permissions{texts(parsed["publish"]), texts(parsed["subscribe"]), responses}
}

// outside are the subjects of some that no permission covers.
func outside(subjects, permitted []string) (out []string) {
	for _, subject := range subjects {
		covered := false
		for _, p := range permitted {
			covered = covered || server.SubjectsCollide(subject, p) && subjectIsSubset(subject, p)
		}
		if !covered {
			out = append(out, subject)
		}
	}
	return out
}

// subjectIsSubset reports whether all that a subject matches another matches too.
func subjectIsSubset(subject, of string) bool {
	a, b := strings.Split(subject, "."), strings.Split(of, ".")
	for i, token := range b {
		switch {
		case token == ">":
			return len(a) > i
		case i >= len(a) || token != "*" && token != a[i]:
			return false // the server lets a trailing > pass where a * is permitted
		}
	}
	return len(a) == len(b)
}

// asked asks for a user's tokens.
func (c *caller) asked(user string) events.TokenReply {
	c.t.Helper()
	msg, err := c.Request(events.Subjects{}.TokenGet(user), []byte(`{"userId":"`+user+`"}`), patience)
	require.NoError(c.t, err)
	require.Empty(c.t, msg.Header.Get("Nats-Service-Error"), string(msg.Data))
	reply, err := events.DecodeTokenReply(msg.Data)
	require.NoError(c.t, err)
	return reply
}

// connectFrom connects to NATS by variables alone.
func connectFrom(variables []string) (*nats.Conn, error) {
	cfg, err := config.Load("", append([]string{"LATCHKEY_KMS_KEY_ID=k", "LATCHKEY_MESH_CLIENT_ID=c", "LATCHKEY_MESH_CLIENT_SECRET=s"}, variables...))
	if err != nil {
		return nil, err
	}
	return worker.Connect(cfg.NATS, "test", zap.NewNop())
}
