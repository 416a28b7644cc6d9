package main

import (
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/docs/commands"
)

// TestEveryDocumentedCommandExists: each line in the documents that calls the
// sandbox, directly or by make chaos or make bench, parses.
func TestEveryDocumentedCommandExists(t *testing.T) {
	const top = "../../"
	found, err := commands.In(top+"README.md", top+"CONTRIBUTING.md", top+"docs/*.md", top+"deploy/*.md", top+"deploy/*/*.md")
	require.NoError(t, err)
	seen := 0
	for _, c := range found {
		args := c.Words[1:]
		for variable, command := range map[string]string{"CHAOS": "chaos", "BENCH": "bench"} {
			if c.Program() == "make" && c.Assigned[variable] != "" {
				args = append([]string{command}, strings.Fields(c.Assigned[variable])...)
			}
		}
		if c.Program() != "sandbox" && c.Assigned["CHAOS"] == "" && c.Assigned["BENCH"] == "" {
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
