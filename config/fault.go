package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Error lists everything that is wrong with a configuration.
type Error struct{ Faults []Fault }

// Error implements error: one line for each fault.
func (e *Error) Error() string {
	lines := []string{fmt.Sprintf("configuration: %d fault(s)", len(e.Faults))}
	for _, f := range e.Faults {
		lines = append(lines, "  "+f.String())
	}
	return strings.Join(lines, "\n")
}

// Fault is one thing wrong with a configuration. It says what is allowed and
// never repeats a value, since a secret may have been put in the wrong place.
type Fault struct {
	Key      string // in the notation of the file; empty when the fault is not about a known key
	Variable string // in the notation of the environment; empty when there is none
	Problem  string
}

// String names the key in both notations and what is allowed.
func (f Fault) String() string {
	switch {
	case f.Key == "" && f.Variable == "":
		return f.Problem
	case f.Key == "":
		return f.Variable + ": " + f.Problem
	case f.Variable == "":
		return f.Key + ": " + f.Problem
	}
	return fmt.Sprintf("%s (%s): %s", f.Key, f.Variable, f.Problem)
}

// faults collects what is wrong.
type faults []Fault

// add records a fault of a key.
func (fs *faults) add(key, problem string, args ...any) {
	*fs = append(*fs, Fault{Key: key, Variable: variable(key), Problem: fmt.Sprintf(problem, args...)})
}

// about reports whether there is a fault of the key.
func (fs faults) about(key string) bool {
	return slices.ContainsFunc(fs, func(f Fault) bool { return f.Key == key })
}

func (fs faults) err() error {
	if len(fs) == 0 {
		return nil
	}
	return &Error{Faults: fs}
}

const prefix = "LATCHKEY_"

// brokersKey has keys that are broker types, which variables cannot name.
const brokersKey = "refresh.brokers"

// variable returns the environment's name for a key, empty if it has none.
func variable(key string) string {
	if strings.HasPrefix(key, brokersKey) {
		return ""
	}
	return prefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

var word = regexp.MustCompile(`^[A-Za-z_]{1,40}$`)

// shown returns a name that the operator wrote, after a space, when it looks like
// a word; anything else might be a secret that slipped into the place of a name.
func shown(name string) string {
	if word.MatchString(name) {
		return " " + name
	}
	return ""
}
