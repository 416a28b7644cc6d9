// Package credentials finds when the certificates and credentials end that a worker reads
// from files, for warnings before they do.
package credentials

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/latchkey/latchkey/config"
)

// Validity is the time in which a credential is accepted.
type Validity struct {
	Begins time.Time
	// Ends is zero where it has no end.
	Ends time.Time
}

// RenewBy is when a credential should have been renewed: thirty days before its end, or
// a tenth of its validity where that is less, since what lives for days or hours is
// renewed by a machine.
func (l Validity) RenewBy() time.Time {
	return l.Ends.Add(-min(30*24*time.Hour, l.Ends.Sub(l.Begins)/10))
}

// File is a file with a certificate or credential.
type File struct {
	// Name is the setting that names the file, or the variable.
	Name     string
	path     string
	validity func(content []byte) (Validity, error)
	// kept: it is read when a worker starts, and not again.
	kept bool
}

// Of returns the files that a configuration and an environment name.
func Of(cfg config.Config, environ []string) []File {
	mongo := uriOptions(cfg.MongoDB.URI.Reveal())
	all := []File{
		{Name: "nats.creds_file", path: cfg.NATS.CredsFile, validity: natsCredentials},
		{Name: "nats.cert_file", path: cfg.NATS.CertFile, validity: chain},
		{Name: "nats.ca_file", path: cfg.NATS.CAFile, validity: authorities},
		{Name: "mongodb.uri tlsCertificateKeyFile", path: mongo.either("tlscertificatekeyfile", "sslclientcertificatekeyfile"), validity: chain, kept: true},
		{Name: "mongodb.uri tlsCertificateFile", path: mongo["tlscertificatefile"], validity: chain, kept: true},
		{Name: "mongodb.uri tlsCAFile", path: mongo.either("tlscafile", "sslcertificateauthorityfile"), validity: authorities, kept: true},
		{Name: "admin.cert_file", path: cfg.Admin.CertFile, validity: chain},
		{Name: "AWS_WEB_IDENTITY_TOKEN_FILE", path: variable(environ, "AWS_WEB_IDENTITY_TOKEN_FILE"), validity: token},
		{Name: "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", path: variable(environ, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"), validity: agents},
		{Name: "AWS_CA_BUNDLE", path: variable(environ, "AWS_CA_BUNDLE"), validity: authorities, kept: true},
	}
	if cfg.Tracing.Endpoint != "" {
		all = append(all, collectors(environ, "CERTIFICATE", authorities), collectors(environ, "CLIENT_CERTIFICATE", chain))
	}
	var named []File
	for _, f := range all {
		if f.path != "" {
			named = append(named, f)
		}
	}
	return named
}

// collectors is a file for the connection to a collector of traces.
func collectors(environ []string, what string, validity func([]byte) (Validity, error)) File {
	name, path := CollectorVariable(func(name string) string { return variable(environ, name) }, what)
	return File{Name: name, path: path, validity: validity, kept: true}
}

// CollectorVariable returns what OpenTelemetry's variables say about the connection to a
// collector of traces, and which of them says it: one for traces alone, or one for all that
// is sent.
func CollectorVariable(getenv func(string) string, what string) (name, value string) {
	for _, prefix := range []string{"OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"} {
		if value := getenv(prefix + what); value != "" {
			return prefix + what, value
		}
	}
	return "", ""
}

// maxFile bounds what is read of a file; bundles of authorities are the largest.
const maxFile = 4 << 20

// Validity reads the file.
func (f File) Validity() (Validity, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return Validity{}, err
	}
	defer file.Close() //nolint:errcheck // nothing was written
	content, err := io.ReadAll(io.LimitReader(file, maxFile))
	if err != nil {
		return Validity{}, err
	}
	validity, err := f.validity(content)
	if err != nil {
		return Validity{}, fmt.Errorf("%s: %w", f.path, err)
	}
	return validity, nil
}

// chain is the validity of a certificate with those that vouch for it: that of the first to
// end.
func chain(content []byte) (Validity, error) {
	return pick(content, func(l, than Validity) bool { return l.Ends.Before(than.Ends) })
}

// authorities is the validity of a bundle: that of the last to end, since a bundle holds the
// old authority beside the new one while they change.
func authorities(content []byte) (Validity, error) {
	return pick(content, func(l, than Validity) bool { return l.Ends.After(than.Ends) })
}

func pick(content []byte, better func(l, than Validity) bool) (picked Validity, err error) {
	found := false
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return Validity{}, errors.New("a certificate in it can't be read") // the text could quote what is no certificate
		}
		if l := (Validity{c.NotBefore, c.NotAfter}); !found || better(l, picked) {
			picked, found = l, true
		}
	}
	if !found {
		return Validity{}, errors.New("there is no certificate in it")
	}
	return picked, nil
}

func natsCredentials(content []byte) (Validity, error) {
	jwt, err := nkeys.ParseDecoratedJWT(content)
	if err != nil {
		return Validity{}, errNoToken
	}
	return token([]byte(jwt))
}

var errNoToken = errors.New("there is no JWT in it")

// token is the validity of a JWT.
func token(content []byte) (Validity, error) {
	parts := strings.Split(strings.TrimSpace(string(content)), ".")
	if len(parts) != 3 {
		return Validity{}, errNoToken
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return Validity{}, errNoToken
	}
	var claims struct {
		Issued    int64 `json:"iat"`
		NotBefore int64 `json:"nbf"`
		Expires   int64 `json:"exp"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return Validity{}, errNoToken
	}
	validity := Validity{Begins: time.Unix(max(claims.Issued, claims.NotBefore), 0)}
	if claims.Expires != 0 {
		validity.Ends = time.Unix(claims.Expires, 0)
	}
	return validity, nil
}

// agents is the validity of what the agent of a container takes: EKS Pod Identity's a JWT, others
// a text without end.
func agents(content []byte) (Validity, error) {
	validity, _ := token(content)
	return validity, nil
}

// options are those of a connection string, by name in lower case.
type options map[string]string

func (o options) either(name, older string) string {
	if o[name] != "" {
		return o[name]
	}
	return o[older]
}

func uriOptions(uri string) options {
	o := options{}
	_, query, _ := strings.Cut(uri, "?")
	for _, pair := range strings.FieldsFunc(query, func(c rune) bool { return c == '&' || c == ';' }) {
		name, value, _ := strings.Cut(pair, "=")
		if path, err := url.QueryUnescape(value); err == nil {
			o[strings.ToLower(name)] = path
		}
	}
	return o
}

// variable returns a variable's value; of several the last counts.
func variable(environ []string, name string) (value string) {
	for _, entry := range environ {
		if v, found := strings.CutPrefix(entry, name+"="); found {
			value = v
		}
	}
	return value
}
