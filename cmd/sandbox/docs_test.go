package main

import (
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/docs/commands"
)

// TestEveryDocumentedCommandExists: each line in the documents that calls the
// sandbox, directly or by make chaos, parses.
func TestEveryDocumentedCommandExists(t *testing.T) {
	const top = "../../"
	found, err := commands.In(top+"README.md", top+"docs/*.md", top+"deploy/*.md", top+"deploy/*/*.md")
	require.NoError(t, err)
	seen := 0
	for _, c := range found {
		args := c.Words[1:]
		if c.Program() == "make" {
			args = append([]string{"chaos"}, strings.Fields(c.Assigned["CHAOS"])...)
		}
		if c.Program() != "sandbox" && c.Assigned["CHAOS"] == "" {
			continue
		}
		seen++
		cmd, rest, err := newRoot(io.Discard).Find(args)
		require.NoError(t, err, "%s: %v", c.Where, args)
		require.NoError(t, cmd.ParseFlags(rest), "%s: %v", c.Where, args)
		require.NoError(t, cmd.ValidateArgs(cmd.Flags().Args()), "%s: %v", c.Where, args)
	}
	require.Greater(t, seen, 3)
}
