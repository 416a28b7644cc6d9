package cli_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/latchkey/cli"
)

func TestExitCodes(t *testing.T) {
	complete := []string{"LATCHKEY_KMS_KEY_ID=alias/x", "LATCHKEY_KMS_REGION=eu-central-1", "LATCHKEY_MESH_CLIENT_ID=c", "LATCHKEY_MESH_CLIENT_SECRET=s", "LATCHKEY_NATS_URL=nats://127.0.0.1:1"}
	for name, c := range map[string]struct {
		args, environ []string
		code          int
	}{
		"help":                {[]string{"--help"}, nil, cli.ExitOK},
		"valid configuration": {[]string{"config", "check"}, complete, cli.ExitOK},
		"wrong configuration": {[]string{"config", "check"}, nil, cli.ExitUsage},
		"missing file":        {[]string{"config", "check", "-c", "/nonexistent.yaml"}, complete, cli.ExitUsage},
		"unknown command":     {[]string{"nonsense"}, nil, cli.ExitUsage},
		"unknown flag":        {[]string{"run", "--nonsense"}, nil, cli.ExitUsage},
		"missing argument":    {[]string{"token", "get"}, complete, cli.ExitUsage},
		"bad user":            {[]string{"token", "get", "a\x1bb"}, complete, cli.ExitUsage},
		"unknown subcommand":  {[]string{"deadletters", "nonsense"}, complete, cli.ExitUsage},
		"unknown output":      {[]string{"grants", "show", "x", "-o", "xml"}, complete, cli.ExitUsage},
		"missing ids":         {[]string{"deadletters", "replay"}, complete, cli.ExitUsage},
		"empty user":          {[]string{"grants", "list", "--user", ""}, complete, cli.ExitUsage},
		"empty state":         {[]string{"grants", "list", "--state", ""}, complete, cli.ExitUsage},
		"empty page":          {[]string{"grants", "list", "--after="}, complete, cli.ExitUsage},
		"empty broker":        {[]string{"token", "get", "alice", "--broker", ""}, complete, cli.ExitUsage},
		"empty account":       {[]string{"token", "get", "alice", "--account="}, complete, cli.ExitUsage},
		"empty schedule":      {[]string{"schedule", "--user", ""}, complete, cli.ExitUsage},
		"empty kind":          {[]string{"events", "--kind", ""}, complete, cli.ExitUsage},
		"empty config":        {[]string{"config", "check", "-c", ""}, complete, cli.ExitUsage},
		"unknown state":       {[]string{"grants", "list", "--state", "dead"}, complete, cli.ExitUsage},
		"no limit":            {[]string{"grants", "list", "--limit", "0"}, complete, cli.ExitUsage},
		"user and page":       {[]string{"grants", "list", "--user", "alice", "--after", "x"}, complete, cli.ExitUsage},
		"negative time":       {[]string{"grants", "list", "--due-within", "-1s"}, complete, cli.ExitUsage},
		"due within no time":  {[]string{"grants", "list", "--due-within", "0s"}, complete, cli.ExitUsage},
		"no time to check":    {[]string{"doctor", "--timeout", "0"}, complete, cli.ExitUsage},
		"nothing to check":    {[]string{"doctor"}, nil, cli.ExitUsage},
		"version":             {[]string{"version"}, nil, cli.ExitOK},
		"completion":          {[]string{"completion", "bash"}, nil, cli.ExitOK},
		"no NATS to look at":  {[]string{"deadletters", "list"}, complete, cli.ExitFailed},
		"no NATS":             {[]string{"run"}, complete, cli.ExitFailed},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			require.Equal(t, c.code, cli.Run(t.Context(), c.args, c.environ, &stdout, &stderr), stderr.String())
		})
	}
}
