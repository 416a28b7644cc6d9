package cli

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// unreachable is a configuration that is valid, of servers that are not there.
var unreachable = []string{
	"LATCHKEY_KMS_KEY_ID=alias/x", "LATCHKEY_KMS_REGION=eu-central-1", "LATCHKEY_MESH_CLIENT_ID=c", "LATCHKEY_MESH_CLIENT_SECRET=s",
	"LATCHKEY_NATS_URL=nats://127.0.0.1:1", "LATCHKEY_MONGODB_URI=mongodb://127.0.0.1:1/?directConnection=true", "LATCHKEY_MONGODB_TIMEOUT=500ms",
}

// faulty is a configuration that can't be read, so that no server is asked.
var faulty = []string{"LATCHKEY_CONFIG=/nonexistent.yaml"}

// mayBeZero are the flags of numbers and durations for which zero means something.
var mayBeZero = map[string]bool{
	"latchkey token get --min-ttl": true, "latchkey keys reseal --patience": true,
	"latchkey keys reseal --rate": true, "latchkey keys rewrap --rate": true, "latchkey import --rate": true,
}

// wrongValues returns what a flag must refuse, by its type and by what shells are offered.
func wrongValues(t *testing.T, cmd *cobra.Command, f *pflag.Flag) []string {
	t.Helper()
	all, ok := map[string][]string{
		"duration":      {"-5s", "-500ms", "5", "nonsense", "", "9999999h"},
		"duration|time": {"-5s", "yesterday", "2026-03-01", ""},
		"int":           {"-1", "1.5", "nonsense", "", "99999999999999999999"},
		"float":         {"-1", "NaN", "Inf", "nonsense", ""},
		"bool":          {"nonsense"},
		"string":        {""},
		"table|json":    {"nonsense", ""},
		"columns":       {"nonsense", "id,nonsense", ""},
	}[f.Value.Type()]
	require.True(t, ok, "%s --%s: no wrong value is known for a %s", cmd.CommandPath(), f.Name, f.Value.Type())
	zero := map[string]string{"duration": "0s", "int": "0"}[f.Value.Type()]
	if zero != "" && !mayBeZero[cmd.CommandPath()+" --"+f.Name] {
		all = append(all, zero)
	}
	if f.Name == "user" {
		all = append(all, "a\x1bb", strings.Repeat("x", 301))
	}
	if len(choicesOf(cmd, f)) > 0 {
		all = append(all, "nonsense")
	}
	return all
}

// choicesOf are the words that shells are offered for a flag without any server.
func choicesOf(cmd *cobra.Command, f *pflag.Flag) []string {
	offered, ok := cmd.GetFlagCompletionFunc(f.Name)
	if !ok {
		return nil
	}
	cmd.SetContext(context.Background())
	choices, directive := offered(cmd, nil, "")
	if directive&cobra.ShellCompDirectiveNoFileComp == 0 { // the ends of names of files
		return nil
	}
	return choices
}

// sampleArgs are arguments as the use of a command demands them.
func sampleArgs(cmd *cobra.Command) (args []string) {
	for _, word := range strings.Fields(cmd.Use)[1:] {
		if !strings.HasPrefix(word, "[") {
			args = append(args, "sample")
		}
	}
	return args
}

// TestWrongCommandLines: each command tells each that it is wrong, with the exit code for
// it, before it looks for a server.
func TestWrongCommandLines(t *testing.T) {
	wrong := func(t *testing.T, path string, args ...string) string {
		t.Helper()
		args = append(strings.Fields(path)[1:], args...)
		var stdout, stderr bytes.Buffer
		require.Equal(t, ExitUsage, Run(t.Context(), args, unreachable, &stdout, &stderr), "%q: %s%s", args, &stdout, &stderr)
		require.Empty(t, stdout.String(), "%q", args)
		require.True(t, strings.HasPrefix(stderr.String(), "latchkey: "), "%q: %s", args, &stderr)
		require.NotContains(t, stderr.String(), "\x1b")
		return stderr.String()
	}
	root := newRoot(&app{environ: faulty})
	for _, cmd := range documented(root) {
		path := cmd.CommandPath()
		t.Run(strings.TrimPrefix(path, "latchkey "), func(t *testing.T) {
			args := sampleArgs(cmd)
			wrong(t, path, append(args, "--nonsense")...)
			wrong(t, path, append(args, "-Q")...)
			if len(args) > 0 {
				wrong(t, path, make([]string, len(args))...)
			}
			if !strings.Contains(cmd.Use, "...") {
				wrong(t, path, append(args, "one", "more")...)
			}
			if len(args) > 0 {
				wrong(t, path)
			}
			visit := func(f *pflag.Flag) {
				if f.Name == "help" {
					return
				}
				if f.Value.Type() != "bool" {
					wrong(t, path, append(args, "--"+f.Name)...)
				}
				for _, value := range wrongValues(t, cmd, f) {
					told := wrong(t, path, append(args, fmt.Sprintf("--%s=%s", f.Name, value))...)
					require.Contains(t, told, "--"+f.Name, value)
				}
				for _, others := range f.Annotations[excludes] {
					other := cmd.Flags().Lookup(others)
					require.NotNil(t, other, others)
					told := wrong(t, path, append(args, "--"+f.Name+"="+rightValue(cmd, f), "--"+other.Name+"="+rightValue(cmd, other))...)
					require.Contains(t, told, "--"+f.Name+" and --"+other.Name+" exclude each other")
				}
			}
			cmd.LocalFlags().VisitAll(visit)
			root.PersistentFlags().VisitAll(visit)
		})
	}
	for _, path := range []string{"latchkey nonsense", "latchkey grants nonsense", "latchkey completion nonsense", "latchkey --nonsense", "latchkey help nonsense", "latchkey help grants nonsense"} {
		wrong(t, path)
	}
	for _, args := range [][]string{{"help"}, {"help", "grants"}, {"help", "grants", "list"}, {"help", "completion", "bash"}, {"help", "help"}} {
		var stdout, stderr bytes.Buffer
		require.Equal(t, ExitOK, Run(t.Context(), args, faulty, &stdout, &stderr), "%q: %s", args, &stderr)
		require.Contains(t, stdout.String(), "Usage:")
	}
}

// rightValue is a value that a flag takes.
func rightValue(cmd *cobra.Command, f *pflag.Flag) string {
	if choices := choicesOf(cmd, f); len(choices) > 0 {
		return choices[0]
	}
	return map[string]string{"duration": "5m", "duration|time": "1h", "int": "1", "float": "1", "bool": "true", "string": "sample"}[f.Value.Type()]
}

// TestNoDurationIsCut: what a user asked for is not rounded to nothing.
func TestNoDurationIsCut(t *testing.T) {
	for _, cmd := range documented(newRoot(&app{})) {
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Value.Type() != "duration" {
				return
			}
			require.NoError(t, f.Value.Set("500ms"))
			require.Equal(t, "500ms", f.Value.String(), "%s --%s", cmd.CommandPath(), f.Name)
		})
	}
	for ttl, want := range map[time.Duration]int64{500 * time.Millisecond: 1, time.Second: 1, 1001 * time.Millisecond: 2, 0: 0, 5 * time.Minute: 300} {
		require.Equal(t, want, wholeSeconds(ttl), ttl)
	}
}
