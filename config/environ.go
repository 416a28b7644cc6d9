package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/latchkey/latchkey/events/secret"
)

const (
	fileSuffix    = "_FILE"
	testPrefix    = prefix + "TEST_"
	maxSecretSize = 64 << 10
)

// Kubernetes sets these variables in every pod if there is a service named latchkey.
var serviceLink = regexp.MustCompile(`^` + prefix + `([^=]*_)?` +
	`(SERVICE_HOST|SERVICE_PORT(_[^=]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?|PORT=(tcp|udp|sctp)://[^=]*)(=|$)`)

var variableName = regexp.MustCompile(`^[A-Z0-9_]{1,64}$`)

func (l *loader) readEnvironment(variables map[string]string) {
	known := []string{configVariable}
	for _, f := range leaves("", reflect.ValueOf(&l.config).Elem()) {
		name := variable(f.key)
		known = append(known, name)
		text, isSet := variables[name]
		if f.isSecret() {
			known = append(known, name+fileSuffix)
			if path, fromFile := variables[name+fileSuffix]; fromFile {
				if isSet {
					l.faults.add(f.key, "must not be set together with %s", name+fileSuffix)
				} else {
					l.readSecret(f, path)
				}
				continue
			}
		}
		if isSet && !f.set(text) {
			l.faults.add(f.key, "%s", form(f.value.Type()))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		if strings.HasPrefix(name, prefix) && !strings.HasPrefix(name, testPrefix) &&
			!serviceLink.MatchString(name+"="+variables[name]) && !slices.Contains(known, name) {
			l.unknownVariable(name, known)
		}
	}
}

func (l *loader) unknownVariable(name string, known []string) {
	f := Fault{Variable: prefix + "…", Problem: "unknown variable"}
	if variableName.MatchString(name) {
		f.Variable = name
		f.Problem += suggestion(name, known)
	}
	l.faults = append(l.faults, f)
}

func (l *loader) readSecret(f field, path string) {
	text, err := readSecretFile(path)
	if err != nil {
		l.faults = append(l.faults, Fault{Key: f.key, Variable: variable(f.key) + fileSuffix, Problem: err.Error()})
		return
	}
	f.value.Set(reflect.ValueOf(text))
}

// readSecretFile reads a secret. The error does not name the path, which may be the
// secret itself in the wrong variable.
func readSecretFile(path string) (secret.Text, error) {
	content, err := readUpTo(path, maxSecretSize)
	if err != nil {
		return secret.Text{}, errors.New("must name a readable file of at most 64 KiB: " + cause(err))
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	if text == "" {
		return secret.Text{}, errors.New("must name a file that is not empty")
	}
	return secret.New(text), nil
}

// ErrNoFile: the environment names no file for the secret.
var ErrNoFile = errors.New("the secret has no file")

// SecretFile reads a secret again, given its key such as nats.password, from the file
// that the environment names. If it names none, the error is [ErrNoFile].
func SecretFile(key string, environ []string) (secret.Text, error) {
	name := variable(key) + fileSuffix
	for _, entry := range slices.Backward(environ) { // the last of several counts
		if path, found := strings.CutPrefix(entry, name+"="); found {
			text, err := readSecretFile(path)
			if err != nil {
				return secret.Text{}, fmt.Errorf("%s %w", name, err)
			}
			return text, nil
		}
	}
	return secret.Text{}, ErrNoFile
}

// readUpTo reads a file of at most limit bytes.
func readUpTo(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	content, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(content)) > limit {
		return nil, errTooLarge
	}
	return content, err
}
