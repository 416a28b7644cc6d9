package cli

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/latchkey/latchkey/events"
)

// parsed is the value of a flag that refuses what its command can't use: then the command
// line is wrong, and nothing is done.
type parsed[T comparable] struct {
	value *T
	kind  string
	parse func(string) (T, error)
}

func (p *parsed[T]) Type() string { return p.kind }

func (p *parsed[T]) String() string {
	var none T
	if p.value == nil || *p.value == none {
		return ""
	}
	return fmt.Sprint(*p.value)
}

func (p *parsed[T]) Set(text string) error {
	v, err := p.parse(text)
	if err == nil {
		*p.value = v
	}
	return err
}

func parsedFlag[T comparable](cmd *cobra.Command, value *T, kind, name, use string, parse func(string) (T, error)) {
	cmd.Flags().Var(&parsed[T]{value, kind, parse}, name, use)
	complete(cmd, name) // no file
}

const (
	positive    time.Duration = 1
	notNegative time.Duration = 0
)

// durationFlag adds a flag for a duration of at least least, which is positive or
// notNegative.
func durationFlag(cmd *cobra.Command, value *time.Duration, name string, preset, least time.Duration, use string) {
	*value = preset
	parsedFlag(cmd, value, "duration", name, use, func(text string) (time.Duration, error) {
		d, err := time.ParseDuration(text)
		switch {
		case err != nil:
			return 0, errors.New("must be a duration such as 90s, 5m or 24h")
		case d < least && least == positive:
			return 0, errors.New("must be above 0")
		case d < least:
			return 0, errors.New("must not be negative")
		}
		return d, nil
	})
}

// countFlag adds a flag for a whole number from least to most.
func countFlag(cmd *cobra.Command, value *int, name string, preset, least, most int, use string) {
	*value = preset
	must := fmt.Errorf("must be a number from %d to %d", least, most)
	if most == math.MaxInt {
		must = fmt.Errorf("must be a number of at least %d", least)
	}
	parsedFlag(cmd, value, "int", name, use, func(text string) (int, error) {
		n, err := strconv.Atoi(text)
		if err != nil || n < least || n > most {
			return 0, must
		}
		return n, nil
	})
}

// numberFlag adds a flag for a number of at least 0.
func numberFlag(cmd *cobra.Command, value *float64, name, use string) {
	parsedFlag(cmd, value, "float", name, use, func(text string) (float64, error) {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) || f < 0 {
			return 0, errors.New("must be a number of at least 0")
		}
		return f, nil
	})
}

// choiceFlag adds a flag for one of several words, and lets shells complete them.
func choiceFlag(cmd *cobra.Command, value *string, name, use string, choices []string) {
	cmd.Flags().Var(&parsed[string]{value, "string", func(text string) (string, error) {
		if !slices.Contains(choices, text) {
			return "", emptyOr(text, "must be one of "+strings.Join(choices, ", "))
		}
		return text, nil
	}}, name, use+": "+strings.Join(choices, ", "))
	complete(cmd, name, choices...)
}

// timeFlag adds a flag for a time in the past, given as such or as how long ago.
func timeFlag(cmd *cobra.Command, value *time.Time, name, use string) {
	parsedFlag(cmd, value, "duration|time", name, use, func(text string) (time.Time, error) {
		if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
			return time.Now().Add(-ago), nil
		}
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return time.Time{}, errors.New("must be a duration such as 24h or a time such as 2026-03-01T00:00:00Z")
		}
		return at, nil
	})
}

// userFlag adds --user.
func (a *app) userFlag(cmd *cobra.Command, value *string, use string) {
	cmd.Flags().VarP(&parsed[string]{value, "string", func(text string) (string, error) {
		if err := events.CheckUserID(text); err != nil {
			return "", emptyOr(text, err.Error())
		}
		return text, nil
	}}, "user", "u", use)
	completeWith(cmd, "user", a.offer(offerUsers))
}

// brokerFlag adds --broker.
func (a *app) brokerFlag(cmd *cobra.Command, value *string, use string) {
	cmd.Flags().StringVar(value, "broker", "", use+" at this broker type; case does not matter")
	completeWith(cmd, "broker", a.offer(offerBrokers))
}

// emptyOr says what is wrong with the text of a flag.
func emptyOr(text, wrong string) error {
	if text == "" {
		return errEmpty
	}
	return errors.New(wrong)
}

// errEmpty: as a rule a shell variable was not set, and the command would cover more than
// the user meant.
var errEmpty = errors.New("empty; leave the flag out or give it a value")

// checkFlags refuses what no flag can refuse by itself: text that is empty, and flags that
// exclude each other.
func checkFlags(flags *pflag.FlagSet) (err error) {
	flags.Visit(func(f *pflag.Flag) {
		if f.Value.Type() == "string" && f.Value.String() == "" {
			err = cmp.Or(err, usage("--%s: %w", f.Name, errEmpty))
		}
		for _, others := range f.Annotations[excludes] {
			for other := range strings.FieldsSeq(others) {
				if flags.Changed(other) {
					err = cmp.Or(err, usage("--%s and --%s exclude each other", f.Name, other))
				}
			}
		}
	})
	return err
}

// excludes is the annotation of a flag with the names of those that it excludes.
const excludes = "latchkey_excludes"

// exclusive has a flag exclude others.
func exclusive(cmd *cobra.Command, name string, others ...string) {
	if err := cmd.Flags().SetAnnotation(name, excludes, others); err != nil {
		panic(err) // there is no such flag
	}
}

// flagError says which flag is wrong. It does not repeat the value.
func flagError(_ *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		err = fmt.Errorf("--%s: %w", invalid.GetFlag().Name, invalid.Unwrap())
	}
	return &exitError{ExitUsage, err}
}

// noEmpty refuses empty arguments beside what another check refuses.
func noEmpty(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return err
		}
		if slices.Contains(args, "") {
			return errors.New("an argument is empty")
		}
		return nil
	}
}

// oneUser demands the id of a user as the only argument.
func oneUser(cmd *cobra.Command, args []string) error {
	if err := cobra.ExactArgs(1)(cmd, args); err != nil {
		return err
	}
	return events.CheckUserID(args[0])
}
