package meshsim_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
)

var update = flag.Bool("update", false, "write the dialects in docs/sandbox.md anew")

// TestDialectsAreDocumented fails when docs/sandbox.md does not list the table.
func TestDialectsAreDocumented(t *testing.T) {
	const path, begin, end = "../../../docs/sandbox.md", "<!-- dialects: written by go generate ./cmd/sandbox/meshsim -->\n", "<!-- end of dialects -->"
	var list strings.Builder
	for _, part := range []struct {
		title string
		on    []meshsim.Occasion
	}{
		{"What the institution does", []meshsim.Occasion{meshsim.OnBehaviour}},
		{"How new tokens are stated", []meshsim.Occasion{meshsim.OnTokens}},
		{"How lifetimes are stated, in payloads and answers", []meshsim.Occasion{meshsim.OnLifetimes}},
		{"How any answer to a refresh is sent", []meshsim.Occasion{meshsim.OnRefresh}},
		{"How a refresh token, a code or a removal is refused", []meshsim.Occasion{meshsim.OnRefusal, meshsim.OnWrongCode, meshsim.OnRemoval}},
		{"What answers in place of the institution", []meshsim.Occasion{meshsim.InsteadOfRefresh}},
		{"What the browser or the app hands over", []meshsim.Occasion{meshsim.OnConnect}},
	} {
		fmt.Fprintf(&list, "### %s\n\n| Dialect | |\n|---|---|\n", part.title)
		for _, d := range meshsim.Dialects() {
			for _, on := range part.on {
				if d.On == on {
					fmt.Fprintf(&list, "| `%s` | %s |\n", d.Name, d.Says)
				}
			}
		}
		list.WriteString("\n")
	}
	for _, d := range meshsim.Dialects() {
		require.Contains(t, list.String(), "| `"+d.Name+"` |", "an occasion without a part")
	}
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(content), begin)
	require.True(t, ok)
	_, after, ok := strings.Cut(rest, end)
	require.True(t, ok)
	want := before + begin + "\n" + strings.TrimRight(list.String(), "\n") + "\n\n" + end + after
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(want), 0o644))
		content = []byte(want)
	}
	require.Equal(t, want, string(content), "stale: run go generate ./cmd/sandbox/meshsim")
}
