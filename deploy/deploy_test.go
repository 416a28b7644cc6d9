// Package deploy_test holds what lies in deploy against the code.
package deploy_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/store/envelope"
)

func read(t *testing.T, path string) string {
	t.Helper()
	body, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(body)
}

// given returns variables whose secrets lie in files as in the container.
func given(t *testing.T, variables map[string]string) (environ []string) {
	t.Helper()
	for name, value := range variables {
		if strings.HasSuffix(name, "_FILE") && name != "AWS_SHARED_CREDENTIALS_FILE" && !slices.Contains(pathSettings, name) {
			content := "secret"
			switch name {
			case "LATCHKEY_MONGODB_URI_FILE":
				content = "mongodb://latchkey:secret@mongodb:27017/latchkey?replicaSet=latchkey"
			case "LATCHKEY_ADMIN_TOKEN_FILE":
				content = "a-token-of-enough-letters"
			case "LATCHKEY_NATS_NKEY_SEED_FILE":
				content = "SUAGMJH5XLGZKQQWAWKRZJIGMOU4HPFUYLXJMXOO5NLFEO2OOQJ5LPRDPM"
			}
			value = filepath.Join(t.TempDir(), "secret")
			require.NoError(t, os.WriteFile(value, []byte(content+"\n"), 0o600))
		}
		environ = append(environ, name+"="+value)
	}
	return environ
}

// pathSettings are settings that are paths themselves.
var pathSettings = []string{"LATCHKEY_NATS_CA_FILE", "LATCHKEY_NATS_CERT_FILE", "LATCHKEY_NATS_KEY_FILE", "LATCHKEY_NATS_CREDS_FILE"}

func TestComposeConfiguresAWorker(t *testing.T) {
	var file struct {
		Services map[string]struct {
			Environment map[string]string
			Image       string
			Grace       string `yaml:"stop_grace_period"`
		}
	}
	require.NoError(t, yaml.Unmarshal([]byte(read(t, "compose.yaml")), &file))
	variables := file.Services["worker"].Environment
	for name, value := range variables {
		switch {
		case strings.HasSuffix(value, ":-}"): // which the user may leave out
			variables[name] = ""
		case strings.Contains(value, "${"):
			variables[name] = "value-of-the-user"
		}
	}
	cfg, err := config.Load("", given(t, variables))
	require.NoError(t, err)
	grace, err := time.ParseDuration(file.Services["worker"].Grace)
	require.NoError(t, err)
	require.GreaterOrEqual(t, grace, cfg.Worker.Grace+15*time.Second)
	require.Equal(t, "_INBOX_latchkey", cfg.NATS.InboxPrefix, "the role in deploy/nats may hear no other")
	require.False(t, cfg.Admin.Token.Empty(), "else there is no page")
	require.Regexp(t, `/nats:2\.(1[2-9]|[2-9][0-9])\.`, file.Services["nats"].Image, "message schedules came with 2.12")
}

func TestKubernetesConfiguresAWorker(t *testing.T) {
	var deployment struct {
		Spec struct {
			Template struct {
				Spec struct {
					Grace      int `yaml:"terminationGracePeriodSeconds"`
					Containers []struct {
						Env []struct{ Name, Value string }
					}
				}
			}
		}
	}
	require.NoError(t, yaml.Unmarshal([]byte(read(t, "kubernetes/base/deployment.yaml")), &deployment))
	pod := deployment.Spec.Template.Spec
	variables := map[string]string{}
	for _, e := range pod.Containers[0].Env {
		variables[e.Name] = e.Value
	}
	for _, path := range []string{"kubernetes/base/latchkey.yaml", "kubernetes/overlays/example/latchkey.yaml"} {
		cfg, err := config.Load(path, given(t, variables))
		require.NoError(t, err, path)
		require.GreaterOrEqual(t, time.Duration(pod.Grace)*time.Second, cfg.Worker.Grace+15*time.Second)
		require.Equal(t, "0.0.0.0:9464", cfg.Admin.Listen, "the port of the probes and the policy")
		require.False(t, cfg.Admin.Token.Empty(), "else there is no page")
	}
}

// statement is one of a policy's.
type statement struct {
	Effect, Sid string
	Action      stringOrList
	Condition   map[string]map[string]stringOrList
}

type stringOrList []string

func (s *stringOrList) UnmarshalJSON(raw []byte) error {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		*s = []string{one}
		return nil
	}
	return json.Unmarshal(raw, (*[]string)(s))
}

// policy returns the actions that a policy allows to whom sid names, sorted, and
// has checked what they are bound to.
func policy(t *testing.T, path, sid string) (actions []string) {
	t.Helper()
	var p struct {
		Version   string
		Statement []statement
	}
	require.NoError(t, json.Unmarshal([]byte(read(t, path)), &p))
	require.Equal(t, "2012-10-17", p.Version)
	for _, s := range p.Statement {
		if s.Effect != "Allow" || !strings.Contains(s.Sid, sid) {
			continue
		}
		actions = append(actions, s.Action...)
		if slices.Contains(s.Action, "kms:DescribeKey") {
			continue // it has no encryption context
		}
		// The condition holds for the context that the code sends, and no other.
		var keys []string
		for key, value := range envelope.KMSContext("0123") {
			keys = append(keys, key)
			if key == "app" {
				require.Equal(t, stringOrList{value}, s.Condition["StringEquals"]["kms:EncryptionContext:app"])
			} else {
				require.Equal(t, stringOrList{"false"}, s.Condition["Null"]["kms:EncryptionContext:"+key])
			}
		}
		require.ElementsMatch(t, keys, s.Condition["ForAllValues:StringEquals"]["kms:EncryptionContextKeys"])
		require.Len(t, s.Condition, 3)
	}
	slices.Sort(actions)
	return actions
}

var kmsInput = regexp.MustCompile(`\*kms\.(\w+)Input\b`)

// calls returns the permissions that the calls to KMS in a folder's code need.
func calls(t *testing.T, folder string) (actions []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		for _, m := range kmsInput.FindAllStringSubmatch(read(t, path), -1) {
			if m[1] == "ReEncrypt" {
				actions = append(actions, "kms:ReEncryptFrom", "kms:ReEncryptTo")
			} else {
				actions = append(actions, "kms:"+m[1])
			}
		}
		return nil
	}))
	slices.Sort(actions)
	return slices.Compact(actions)
}

// TestKMSPolicies: they allow exactly what the code does.
func TestKMSPolicies(t *testing.T) {
	worker, rotation := calls(t, "../store"), []string{"kms:DescribeKey", "kms:ReEncryptFrom", "kms:ReEncryptTo"}
	require.NotEmpty(t, worker)
	require.Equal(t, worker, policy(t, "aws/worker-policy.json", ""))
	require.Equal(t, worker, policy(t, "aws/key-policy.json", "Workers"))
	require.Equal(t, rotation, policy(t, "aws/rotation-policy.json", ""))
	require.Equal(t, rotation, policy(t, "aws/key-policy.json", "Operators"))
	// The doctor tries what a worker does.
	require.Subset(t, append(worker, rotation...), calls(t, "../cmd/latchkey"))
	for _, folder := range []string{"../handlers", "../refresher"} {
		require.Empty(t, calls(t, folder))
	}
}

// TestEveryAlertIsExplainedAndTested: an entry in the runbook with all its
// parts, and a case that fires.
func TestEveryAlertIsExplainedAndTested(t *testing.T) {
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert       string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	require.NoError(t, yaml.Unmarshal([]byte(read(t, "prometheus/alerts.yaml")), &rules))
	tests, runbook := read(t, "prometheus/alerts_test.yaml"), read(t, "../docs/runbook.md")
	entries := map[string]string{}
	for _, part := range strings.Split(runbook, "\n### ")[1:] {
		title, body, _ := strings.Cut(part, "\n")
		entries[title] = body
	}
	alerts := 0
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			alerts++
			require.Contains(t, []string{"page", "ticket"}, r.Labels["severity"], r.Alert)
			require.NotEmpty(t, r.Annotations["summary"], r.Alert)
			require.Equal(t, "https://github.com/latchkey/latchkey/blob/main/docs/runbook.md#"+strings.ToLower(r.Alert), r.Annotations["runbook_url"])
			for _, part := range []string{"**Means.**", "**Users.**", "**Look.**", "**Do.**", "**Over.**"} {
				require.Contains(t, entries[r.Alert], part, r.Alert)
			}
			require.Contains(t, tests, `labels: 'ALERTS{alertname="`+r.Alert+`",alertstate="firing",`)
		}
	}
	require.Len(t, entries, alerts, "an entry of no alert")
}
