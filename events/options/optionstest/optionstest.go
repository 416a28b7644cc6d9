// Package optionstest tests that constructors name the options that are missing.
package optionstest

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
)

// Required checks that a constructor takes complete options, and that without any one of
// these fields its error names it.
func Required[O, T any](t *testing.T, build func(O) (T, error), complete O, fields ...string) {
	t.Helper()
	_, err := build(complete)
	require.NoError(t, err)
	for _, name := range fields {
		o := complete
		reflect.ValueOf(&o).Elem().FieldByName(name).SetZero()
		_, err := build(o)
		require.ErrorContains(t, err, name)
	}
}
