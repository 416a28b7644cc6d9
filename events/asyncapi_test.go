package events_test

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/npmtest"
	"github.com/latchkey/latchkey/events"
)

// asyncAPI is asyncapi.yaml as far as Go code says the same.
type asyncAPI struct {
	Channels map[string]struct {
		Address  string
		Messages map[string]any
	}
	Components struct {
		Messages map[string]struct {
			Name    string
			Payload map[string]any
		}
		Schemas map[string]struct {
			Properties map[string]open
			Schema     struct {
				AllOf []struct {
					Properties map[string]struct{ Enum []string }
				} `yaml:"allOf"`
			}
		}
	}
}

// open is a list of words to which others may be added.
type open struct {
	AnyOf []struct{ Enum []string } `yaml:"anyOf"`
}

func readAsyncAPI(t *testing.T) (text string, doc asyncAPI) {
	t.Helper()
	b, err := os.ReadFile("asyncapi.yaml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(b, &doc))
	return string(b), doc
}

func TestAsyncAPIHasTheSubjects(t *testing.T) {
	_, doc := readAsyncAPI(t)
	var s events.Subjects
	want := []string{s.Connected(), s.Disconnected(), s.RejectedAll(), s.TokenGetAll(), s.TokenMFAAll(), s.TokenKeys()}
	for _, kind := range events.LifecycleKinds {
		want = append(want, s.LifecycleAll(kind))
	}
	var got []string
	for name, channel := range doc.Channels {
		if name == "tokenReply" || name == "mfaReply" || name == "keysReply" { // an inbox has no address of its own
			require.Empty(t, channel.Address)
			continue
		}
		got = append(got, strings.ReplaceAll(channel.Address, "{user}", "*"))
	}
	require.ElementsMatch(t, want, got)
}

func TestAsyncAPIHasTheMessages(t *testing.T) {
	text, doc := readAsyncAPI(t)
	files, err := fs.Glob(events.Schemas(), "*")
	require.NoError(t, err)
	referenced := regexp.MustCompile(`'\./schemas/([^']+)'`).FindAllStringSubmatch(text, -1)
	var names []string
	for _, match := range referenced {
		names = append(names, match[1])
	}
	slices.Sort(names)
	require.ElementsMatch(t, files, slices.Compact(names), "schema files referred to")

	names = nil
	for _, message := range doc.Components.Messages {
		names = append(names, message.Name)
	}
	slices.Sort(names)
	want := append([]string{events.IntegrationConnected, events.IntegrationDisconnected, events.IntegrationRejected, events.TokenGetName, events.TokenGetName + " reply", events.TokenGetName + " refusal", "token.keys", "token.keys reply", events.TokenMFAName, events.TokenMFAName + " reply", events.TokenMFAName + " refusal"}, events.LifecycleKinds...)
	require.ElementsMatch(t, want, slices.Compact(names))

	require.ElementsMatch(t, events.LifecycleKinds, doc.Components.Schemas["lifecycleEvent"].Schema.AllOf[1].Properties["type"].Enum)
	refused := doc.Components.Schemas["refused"].Properties
	require.ElementsMatch(t, slices.Collect(maps.Keys(events.CodeNumber)), refused["Nats-Service-Error"].AnyOf[0].Enum)
	require.ElementsMatch(t, slices.Collect(maps.Values(events.CodeNumber)), refused["Nats-Service-Error-Code"].AnyOf[0].Enum)
	refused = doc.Components.Schemas["mfaRefused"].Properties
	require.ElementsMatch(t, slices.Collect(maps.Keys(events.MFACodeNumber)), refused["Nats-Service-Error"].AnyOf[0].Enum)
	require.ElementsMatch(t, slices.Collect(maps.Values(events.MFACodeNumber)), refused["Nats-Service-Error-Code"].AnyOf[0].Enum)
}

// TestContractsHoldInTheirOwnTools has AsyncAPI's parser read asyncapi.yaml and
// ajv the JSON Schemas; contract/ is the Node project that does it.
func TestContractsHoldInTheirOwnTools(t *testing.T) {
	npm := npmtest.New(t)
	here, err := filepath.Abs(".")
	require.NoError(t, err)
	dir := t.TempDir()
	for _, name := range []string{".npmrc", "package.json", "package-lock.json", "check.js"} {
		data, err := os.ReadFile(filepath.Join("contract", name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	npm(dir, nil, "ci")
	npm(dir, []string{"EVENTS=" + here}, "test")
}
