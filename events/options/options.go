// Package options checks the options of a constructor.
package options

import (
	"fmt"
	"reflect"
	"strings"
)

// Require returns an error that names the required fields of a struct of options that are
// zero, or numbers or durations below zero. It returns nil if there are none. what is what
// cannot be made without them.
func Require(what string, options any, fields ...string) error {
	given := reflect.ValueOf(options)
	var missing []string
	for _, name := range fields {
		field := given.FieldByName(name) // of a field that does not exist, IsZero panics
		if field.IsZero() || field.CanInt() && field.Int() < 0 {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%s needs %s", what, strings.Join(missing, ", "))
}
