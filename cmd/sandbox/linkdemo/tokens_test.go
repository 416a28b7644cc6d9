package linkdemo_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// tokens are all that passed through the browser so far.
type tokens struct{ access, refresh []string }

// add collects the tokens of some messages.
func (s *tokens) add(messages []message) {
	for _, m := range messages {
		var payload any
		if json.Unmarshal(m.Payload, &payload) == nil {
			s.find(payload)
		}
	}
}

func (s *tokens) find(value any) {
	switch v := value.(type) {
	case []any:
		for _, element := range v {
			s.find(element)
		}
	case map[string]any:
		for name, element := range v {
			switch text, _ := element.(string); {
			case text != "" && name == "accessToken":
				s.access = append(s.access, text)
			case text != "" && name == "refreshToken":
				s.refresh = append(s.refresh, text)
			default:
				s.find(element)
			}
		}
	}
}

func (s *tokens) all() []string { return append(append([]string{}, s.access...), s.refresh...) }

// mustNotBeIn fails when a token appears in a text. It does not print either.
func (s *tokens) mustNotBeIn(t *testing.T, text string) {
	t.Helper()
	require.NotEmpty(t, s.all(), "no token was seen at all")
	require.NotEmpty(t, text)
	for _, token := range s.all() {
		require.False(t, strings.Contains(text, token), "a token was kept") //nolint:testifylint // NotContains would print it
	}
}

// mustNotBeInFiles fails when a token appears in a file below a folder, and
// returns how many files there are.
func (s *tokens) mustNotBeInFiles(t *testing.T, dir string) (files int) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for _, token := range s.all() {
			require.False(t, bytes.Contains(content, []byte(token)), "a token is in the browser's file %s", d.Name())
		}
		return nil
	}))
	return files
}
