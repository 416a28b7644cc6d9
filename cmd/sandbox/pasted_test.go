package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/cli"
)

// TestMain is also the programs in bin, for shells that run pasted commands.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "sandbox":
		main()
	case "latchkey":
		os.Exit(cli.Run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

var blocks = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// testPasted runs what the demo ends with, and what the README has a newcomer do, as they are,
// in a folder with bin and the running sandbox.
func testPasted(t *testing.T, running, bin string) {
	top := t.TempDir()
	require.NoError(t, os.Symlink(bin, filepath.Join(top, "bin")))
	require.NoError(t, os.Symlink(running, filepath.Join(top, defaultDir)))
	makefile, err := os.ReadFile("../../Makefile")
	require.NoError(t, err)

	page, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(page), "\n## Try it\n")
	require.True(t, found)
	section, _, _ := strings.Cut(rest, "\n## ")
	var readme []string
	for _, m := range blocks.FindAllStringSubmatch(section, -1) {
		readme = append(readme, strings.TrimSpace(m[1]))
	}
	require.Len(t, readme, 3)
	var steps []string
	for line := range strings.Lines(nextSteps) {
		if step, found := strings.CutPrefix(line, "  "); found {
			steps = append(steps, strings.TrimSpace(step))
		}
	}
	require.Len(t, steps, 3)

	for _, step := range append(readme, steps...) {
		if target, found := strings.CutPrefix(step, "make "); found {
			require.Contains(t, string(makefile), "\n"+strings.Fields(target)[0]+": ")
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		sh := exec.CommandContext(ctx, "sh", "-ec", step)
		sh.Dir, sh.Env = top, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + top}
		out, err := sh.CombinedOutput()
		require.NoError(t, err, "%s\n%s", step, out)
		if strings.Contains(step, "sandbox connect") {
			require.Contains(t, string(out), "token.stored")
		}
		if strings.Contains(step, "token get") {
			require.Regexp(t, `(?m)^coinbase +alice-coinbase-1 +Savings +\S+ +\*{4}\S+$`, string(out))
		}
	}

	// A sample of another form is refused before anything is published.
	for args, why := range map[string]string{
		"alice --lifetime 10ms": "--lifetime", "''": "invalid user id", "": "accepts 1 arg",
	} {
		sh := exec.CommandContext(t.Context(), "sh", "-ec", `eval "$(bin/sandbox env)"; sandbox connect `+args)
		sh.Dir = top
		out, err := sh.CombinedOutput()
		require.Error(t, err, args)
		require.Contains(t, string(out), why, args)
	}
}

// Without the variables of a sandbox nothing is published, and the way to them is said.
func TestASampleConnectNeedsASandbox(t *testing.T) {
	err := sampleConnect{user: "alice", broker: "coinbase", lifetime: time.Minute}.run(t.Context(), nil, os.Stdout)
	require.ErrorContains(t, err, `eval "$(sandbox env)"`)
}

// What is built is shown while it takes its time; what fails is passed on with its code.
func TestABuildShowsHowFarItIs(t *testing.T) {
	compiler := filepath.Join(t.TempDir(), "go")
	require.NoError(t, os.WriteFile(compiler, []byte(`#!/bin/sh
case $1 in
list) printf 'a\nb\nc\n' ;;
build)
	echo "go: downloading example.org/x v1.0.0" >&2
	echo example.org/x >&2
	if [ "$LAST" = ./cmd/broken ]; then printf '# example.org/y\ny.go:1:2: undefined: z\n' >&2; exit 1; fi ;;
esac
`), 0o700)) //nolint:gosec // a program
	build := func(what string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "../../.ci/build", what)
		cmd.Env = append(os.Environ(), "GO="+compiler, "LAST="+what)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := build("./cmd/well")
	require.NoError(t, err, out)
	require.Contains(t, out, "Building bin/well.")
	require.Contains(t, out, "downloading example.org/x v1.0.0\n")
	out, err = build("./cmd/broken")
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 1, exit.ExitCode())
	require.Contains(t, out, "# example.org/y\ny.go:1:2: undefined: z\n")
}
