// Package options checks the options of a constructor.
package options

import (
	"fmt"
	"reflect"
	"strings"
)

// Require returns an error that names the required fields of a struct of options that are
// zero, or nil. what is what cannot be made without them.
func Require(what string, options any, fields ...string) error {
	given := reflect.ValueOf(options)
	var missing []string
	for _, name := range fields {
		if given.FieldByName(name).IsZero() { // panics for a field that does not exist
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%s needs %s", what, strings.Join(missing, ", "))
}
