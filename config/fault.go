package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Error lists all faults of a configuration.
type Error struct{ Faults []Fault }

func (e *Error) Error() string {
	lines := []string{fmt.Sprintf("configuration: %d fault(s)", len(e.Faults))}
	for _, f := range e.Faults {
		lines = append(lines, "  "+f.String())
	}
	return strings.Join(lines, "\n")
}

// Needed returns the faults that matter to a command which uses only some sections, such as
// "kms": in the others a value may be missing. Values that are wrong matter to every command.
// It returns nil if there are none.
func (e *Error) Needed(sections ...string) error {
	return faults(slices.DeleteFunc(slices.Clone(e.Faults), func(f Fault) bool {
		section, _, _ := strings.Cut(f.Key, ".")
		return f.Missing && !slices.Contains(sections, section)
	})).err()
}

// Fault is one thing wrong with a configuration. It says what is allowed and never
// repeats a value, which may be a secret in the wrong place.
type Fault struct {
	Key      string // in the file; empty if the fault is not about a known key
	Variable string // in the environment; empty if there is none
	Problem  string
	// Missing: it is a value without a default, and nothing was given.
	Missing bool
}

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

type faults []Fault

func (fs *faults) add(key, problem string, args ...any) {
	*fs = append(*fs, Fault{Key: key, Variable: variable(key), Problem: fmt.Sprintf(problem, args...)})
}

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

// brokersKey is the section whose keys are broker types. Variables can't name these.
const brokersKey = "refresh.brokers"

// variable returns the variable of a key, or "" if there is none.
func variable(key string) string {
	if strings.HasPrefix(key, brokersKey) {
		return ""
	}
	return prefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

var word = regexp.MustCompile(`^[A-Za-z_]{1,40}$`)

// shown returns a space and a name from the file if the name looks like a word.
// Anything else may be a secret in the wrong place.
func shown(name string) string {
	if word.MatchString(name) {
		return " " + name
	}
	return ""
}
