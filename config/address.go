package config

import (
	"net/netip"
	"net/url"
	"regexp"
	"strings"

	"github.com/latchkey/latchkey/events/secret"
)

// address is a URL with one or more hosts; net/url does not read the several hosts of
// a MongoDB URL. All parts are still percent-encoded.
type address struct{ scheme, userinfo, hosts, path, query string }

const hostPattern = `(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._%-]+)(?::[0-9]{1,5})?`

// The pattern allows no @ except at the end of the user info. An address with a password
// that is not encoded properly does not match, so nothing of it is printed.
var addressPattern = regexp.MustCompile(
	`^([a-z][a-z+]*)://(?:([^@/?#\s]+)@)?(` + hostPattern + `(?:,` + hostPattern + `)*)(/[^@?#\s]*)?(\?[^@#\s]*)?$`)

func parseAddress(s string) (address, bool) {
	m := addressPattern.FindStringSubmatch(s)
	if m == nil {
		return address{}, false
	}
	a := address{scheme: m[1], userinfo: m[2], hosts: m[3], path: m[4], query: m[5]}
	_, _, ok := a.credentials()
	return a, ok
}

func parseAddresses(s string) ([]address, bool) {
	var all []address
	for _, part := range strings.Split(s, ",") {
		a, ok := parseAddress(strings.TrimSpace(part))
		if !ok {
			return nil, false
		}
		all = append(all, a)
	}
	return all, true
}

// credentials returns the decoded user and password.
func (a address) credentials() (user, password string, ok bool) {
	user, password, _ = strings.Cut(a.userinfo, ":")
	user, errUser := url.PathUnescape(user)
	password, errPassword := url.PathUnescape(password)
	return user, password, errUser == nil && errPassword == nil
}

func (a address) String() string {
	s := a.scheme + "://"
	if a.userinfo != "" {
		s += a.userinfo + "@"
	}
	return s + a.hosts + a.path + a.query
}

// shownOptions are the options of a connection string that never hold a secret.
var shownOptions = map[string]bool{
	"appname": true, "authmechanism": true, "authsource": true, "directconnection": true,
	"readpreference": true, "replicaset": true, "retrywrites": true, "ssl": true, "tls": true, "w": true,
}

// redacted replaces the password, a user without a password (in NATS that is a token),
// and every option that is not one of shownOptions.
func (a address) redacted() string {
	if user, _, hasPassword := strings.Cut(a.userinfo, ":"); hasPassword {
		a.userinfo = user + ":" + secret.Redacted
	} else if a.userinfo != "" {
		a.userinfo = secret.Redacted
	}
	if a.query != "" {
		options := strings.Split(a.query[1:], "&")
		for i, option := range options {
			if name, _, _ := strings.Cut(option, "="); !shownOptions[strings.ToLower(name)] {
				options[i] = secret.Redacted
			}
		}
		a.query = "?" + strings.Join(options, "&")
	}
	return a.String()
}

// redactAddress redacts one address. A text that is no address is replaced as a whole.
func redactAddress(s string) string {
	a, ok := parseAddress(s)
	switch {
	case s == "":
		return ""
	case !ok:
		return secret.Redacted
	}
	return a.redacted()
}

// redactAddresses redacts a comma-separated list of addresses.
func redactAddresses(s string) string {
	all, ok := parseAddresses(s)
	if !ok {
		return redactAddress(s)
	}
	parts := make([]string, len(all))
	for i, a := range all {
		parts[i] = a.redacted()
	}
	return strings.Join(parts, ",")
}

// carriesSecretsSafely reports whether an HTTP client may send secrets to the address:
// over TLS or within the machine.
func carriesSecretsSafely(s string) bool {
	a, ok := parseAddress(s)
	if !ok || a.userinfo != "" || a.query != "" || strings.Contains(a.hosts, ",") {
		return false
	}
	u, err := url.Parse(s)
	if err != nil {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname())
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
