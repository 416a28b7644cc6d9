package commands_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/docs/commands"
)

func TestCommandsAreFound(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	page := "Run `latchkey run -c x.yaml`, not `latchkey`, nor `latchkey keys …`.\n\n" +
		"    A=1 bin/sandbox chaos --only \"a b\",'c'   # why\n    some output\n\n" +
		"1. ```sh\n   export B=2\n   latchkey token get <user> | jq -r '.[]' > out.txt\n   ```\n\n" +
		"```\nlatchkey no command\n```\n\n```sh\nmake chaos C=\"--seed 1\" D=2\ngo run $(make target)\n```\n"
	require.NoError(t, os.WriteFile(file, []byte(page), 0o600))
	found, err := commands.In(file)
	require.NoError(t, err)
	var words [][]string
	for _, c := range found {
		words = append(words, c.Words)
	}
	require.Equal(t, [][]string{
		{"latchkey", "run", "-c", "x.yaml"},
		{"bin/sandbox", "chaos", "--only", "a b,c"},
		{"latchkey", "token", "get", "x"},
		{"jq", "-r", ".[]"},
		{"make", "chaos"},
		{"go", "run", "x"},
		{"make", "target"},
	}, words)
	require.Equal(t, map[string]string{"A": "1"}, found[1].Assigned)
	require.Equal(t, map[string]string{"C": "--seed 1", "D": "2"}, found[4].Assigned)
	require.Equal(t, "sandbox", found[1].Program())

	require.NoError(t, os.WriteFile(file, []byte("```sh\nlatchkey 'open\n```\n"), 0o600))
	_, err = commands.In(file)
	require.Error(t, err)
}
