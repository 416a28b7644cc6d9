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

// configVariable names the file when the caller of [Load] does not.
const configVariable = prefix + "CONFIG"

// Load returns the configuration made of the defaults, the YAML file at path and
// the environment, given in the form of os.Environ; later ones win. With an empty
// path LATCHKEY_CONFIG names the file; without that there is none.
//
// A secret may also be read from the file that its variable with the suffix _FILE names.
//
// Everything wrong with the file, the environment and the values together is
// reported at once, as an [*Error]. The configuration returned with it is what
// could be read: good for printing, not for use.
func Load(path string, environ []string) (Config, error) {
	l := loader{config: Default()}
	variables := make(map[string]string, len(environ))
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok {
			variables[name] = value
		}
	}
	if path == "" {
		path = variables[configVariable]
	}
	if path != "" {
		l.readFile(path)
	}
	l.readEnvironment(variables)
	l.readBrokers()
	l.config.NATS.takeCredentials()
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
	brokers ast.Node // of the file; read last, because margins there complete themselves from the rest
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
	_, _ = rand.Read(random) // never fails, by its contract
	return host[:min(len(host), 64)] + "-" + hex.EncodeToString(random)
}

// takeCredentials moves user and password, or the token, from the addresses of
// the servers into their own fields, so that the addresses may be logged. Where
// that is not clear they stay, which is a fault.
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
