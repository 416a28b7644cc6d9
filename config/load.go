package config

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/latchkey/latchkey/events/secret"
)

// configVariable names the file if the caller of [Load] does not.
const configVariable = prefix + "CONFIG"

// Load reads the YAML file at path over the defaults, and the environment, in the form
// of os.Environ, over both. If path is empty, LATCHKEY_CONFIG may name the file. The
// variables of OpenTelemetry are defaults of the section tracing.
//
// The variable of a secret with the suffix _FILE names a file that contains the secret.
//
// The error is an [*Error] with all faults. The configuration beside it holds what
// could be read: print it, but do not use it.
func Load(path string, environ []string) (Config, error) {
	l := loader{config: Default()}
	variables := make(map[string]string, len(environ))
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok {
			variables[name] = value
		}
	}
	standard := readOpenTelemetry(variables, l.config.Tracing)
	l.config.Tracing = standard.tracing
	if path == "" {
		path = variables[configVariable]
	}
	if path != "" {
		l.readFile(path)
	}
	l.readEnvironment(variables)
	l.readBrokers()
	l.config.NATS.takeCredentials()
	standard.apply(&l.config.Tracing, &l.faults)
	if l.config.Worker.ID == "" {
		l.config.Worker.ID = newWorkerID()
	}
	for _, f := range l.config.check() {
		// A value that could not be read is not also missing.
		if !l.faults.about(f.Key) {
			l.faults = append(l.faults, f)
		}
	}
	return l.config, l.faults.err()
}

// loader is the state of one Load.
type loader struct {
	config  Config
	faults  faults
	brokers ast.Node // refresh.brokers in the file; read last, because margins there default to those of refresh
}

var notInID = regexp.MustCompile(`[^A-Za-z0-9._-]`)

// newWorkerID returns the host's name and eight random hexadecimal digits.
func newWorkerID() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "latchkey"
	}
	host = notInID.ReplaceAllString(host, "-")
	random := make([]byte, 4)
	_, _ = rand.Read(random) // it never fails
	return host[:min(len(host), 64)] + "-" + hex.EncodeToString(random)
}

// takeCredentials moves the user and password, or the token, from the URLs into their
// own fields, so that the URLs may be logged. Credentials that differ, or that are set
// elsewhere too, stay where they are, and check reports them.
func (n *NATS) takeCredentials() {
	servers, ok := parseAddresses(n.URL)
	if !ok || servers[0].userinfo == "" || n.Username != "" || !n.Password.Empty() || !n.Token.Empty() {
		return
	}
	differs := func(a address) bool { return a.userinfo != servers[0].userinfo }
	if slices.ContainsFunc(servers, differs) {
		return
	}
	user, password, _ := servers[0].credentials()
	if strings.Contains(servers[0].userinfo, ":") {
		n.Username, n.Password = user, secret.New(password)
	} else {
		n.Token = secret.New(user)
	}
	clean := make([]string, len(servers))
	for i, a := range servers {
		a.userinfo = ""
		clean[i] = a.String()
	}
	n.URL = strings.Join(clean, ",")
}
