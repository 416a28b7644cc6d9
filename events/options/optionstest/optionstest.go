// Package optionstest tests that constructors name the options that are missing.
package optionstest

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
)

// Required checks that a constructor takes complete options, and that its error names each
// of these fields if it is zero, or a number or duration below zero.
func Required[O, T any](t *testing.T, build func(O) (T, error), complete O, fields ...string) {
	t.Helper()
	_, err := build(complete)
	require.NoError(t, err)
	for _, name := range fields {
		o := complete
		field := reflect.ValueOf(&o).Elem().FieldByName(name)
		field.SetZero()
		_, err := build(o)
		require.ErrorContains(t, err, name)
		if field.CanInt() {
			field.SetInt(-1)
			_, err := build(o)
			require.ErrorContains(t, err, name)
		}
	}
}
