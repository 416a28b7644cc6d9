package check

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/stretchr/testify/require"
)

// TestDockerfile reads the Dockerfile as BuildKit does, and looks at the image
// that it ends with.
func TestDockerfile(t *testing.T) {
	body, err := os.ReadFile("../Dockerfile")
	require.NoError(t, err)
	parsed, err := parser.Parse(bytes.NewReader(body))
	require.NoError(t, err)
	require.Empty(t, parsed.Warnings)
	lint := linter.New(&linter.Config{Warn: func(rule, description, _, message string, at []parser.Range) {
		t.Errorf("%s: %s (%s) at %v", rule, message, description, at)
	}})
	stages, _, err := instructions.Parse(parsed.AST, lint)
	require.NoError(t, err)

	known := map[string]bool{"scratch": true}
	for _, s := range stages {
		if !known[s.BaseName] {
			_, tag, ok := strings.Cut(s.BaseName, ":")
			require.True(t, ok && tag != "latest", "%s has no tag", s.BaseName)
			full(t, s.BaseName)
		}
		known[s.Name] = true
		for _, c := range s.Commands {
			if copied, ok := c.(*instructions.CopyCommand); ok && copied.From != "" {
				require.True(t, known[copied.From], "copied from %s", copied.From)
			}
		}
	}

	last := stages[len(stages)-1]
	require.Equal(t, "worker", last.Name)
	require.Contains(t, last.BaseName, "distroless/static")
	var user string
	var entrypoint []string
	for _, c := range last.Commands {
		switch c := c.(type) {
		case *instructions.UserCommand:
			user = c.User
		case *instructions.EntrypointCommand:
			require.False(t, c.PrependShell, "there is no shell")
			entrypoint = c.CmdLine
		case *instructions.CmdCommand:
			require.False(t, c.PrependShell, "there is no shell")
		case *instructions.RunCommand:
			t.Error("nothing can run in an image without a shell")
		}
	}
	require.Equal(t, "65532:65532", user)
	require.Equal(t, []string{"/usr/local/bin/latchkey"}, entrypoint)
}
