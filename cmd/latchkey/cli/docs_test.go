package cli

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/docs/commands"
)

const top = "../../../"

// documents are where commands are looked for.
var documents = []string{top + "README.md", top + "CONTRIBUTING.md", top + "docs/*.md", top + "deploy/*.md", top + "deploy/*/*.md"}

// strangers are programs of others that the documents call. Whoever adds one
// makes sure that the line works.
var strangers = map[string]bool{
	"aws": true, "cat": true, "cp": true, "curl": true, "date": true, "docker": true, "echo": true, "export-tokens": true, "go": true, "helm": true, "jq": true, "kubectl": true, "nats": true,
	"eval": true, "nats-server": true, "nk": true, "printf": true, "sort": true, "source": true, "tr": true, "uniq": true,
}

// TestEveryDocumentedCommandExists: each line in the documents that calls
// latchkey parses, and each target of make exists. Calls of the sandbox are
// looked at by its own test.
func TestEveryDocumentedCommandExists(t *testing.T) {
	makefile, err := os.ReadFile(top + "Makefile")
	require.NoError(t, err)
	found, err := commands.In(documents...)
	require.NoError(t, err)
	count := map[string]int{}
	for _, c := range found {
		count[c.Program()]++
		switch c.Program() {
		case "latchkey":
			requireParses(t, c)
		case "make":
			for _, target := range c.Words[1:] {
				require.Regexp(t, `(?m)^`+regexp.QuoteMeta(target)+`:`, string(makefile), "%s: make has no target %s", c.Where, target)
			}
		case "sandbox":
		case "xargs": // calls what follows
			requireParses(t, commands.Command{Where: c.Where, Words: append(c.Words[1:len(c.Words):len(c.Words)], "x")})
		default:
			if strings.HasSuffix(c.Words[0], ".sh") {
				require.FileExists(t, top+c.Words[0], c.Where)
				continue
			}
			assert.True(t, strangers[c.Program()], "%s: %v is not covered by any test", c.Where, c.Words)
		}
	}
	require.Greater(t, count["latchkey"], 60)
	require.Greater(t, count["make"], 5)
}

// requireParses checks that the command exists, with these flags and as many
// arguments.
func requireParses(t *testing.T, c commands.Command) {
	t.Helper()
	root := newRoot(&app{})
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	cmd, rest, err := root.Find(c.Words[1:])
	require.NoError(t, err, "%s: %v", c.Where, c.Words)
	cmd.InitDefaultHelpFlag()
	cmd.InitDefaultVersionFlag()
	require.NoError(t, cmd.ParseFlags(rest), "%s: %v", c.Where, c.Words)
	args := cmd.Flags().Args()
	if c.Mentioned && len(args) == 0 {
		return
	}
	require.NoError(t, cmd.ValidateArgs(args), "%s: %v", c.Where, c.Words)
	require.NoError(t, cmd.ValidateRequiredFlags(), "%s: %v", c.Where, c.Words)
}
