package options_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events/options"
)

func TestMissingOptionsAreNamed(t *testing.T) {
	type parts struct {
		Now      func()
		Name     string
		Timeout  time.Duration
		Optional *int
	}
	require.NoError(t, options.Require("a thing", parts{Now: func() {}, Name: "x", Timeout: -1}, "Now", "Name"))
	require.EqualError(t, options.Require("a thing", parts{Name: "x"}, "Now", "Name"), "a thing needs Now")
	require.EqualError(t, options.Require("a thing", parts{}, "Now", "Name"), "a thing needs Now, Name")
	require.NoError(t, options.Require("a thing", parts{Timeout: 1}, "Timeout"))
	require.EqualError(t, options.Require("a thing", parts{Timeout: -1}, "Timeout"), "a thing needs Timeout", "below zero")
	require.Panics(t, func() { _ = options.Require("a thing", parts{}, "Nothing") }, "the constructor names a field that does not exist")
}
