package options_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events/options"
)

func TestMissingOptionsAreNamed(t *testing.T) {
	type parts struct {
		Now      func()
		Name     string
		Optional *int
	}
	require.NoError(t, options.Require("a thing", parts{Now: func() {}, Name: "x"}, "Now", "Name"))
	require.EqualError(t, options.Require("a thing", parts{Name: "x"}, "Now", "Name"), "a thing needs Now")
	require.EqualError(t, options.Require("a thing", parts{}, "Now", "Name"), "a thing needs Now, Name")
	require.Panics(t, func() { _ = options.Require("a thing", parts{}, "Nothing") }, "the constructor names a field that does not exist")
}
