package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events/secret"
)

func TestTracingHeaders(t *testing.T) {
	for text, want := range map[string]map[string]secret.Text{
		"":                          {},
		"x-key=abc==":               {"x-key": secret.New("abc==")},
		"x-key=abc, a=Bearer d e f": {"x-key": secret.New("abc"), "a": secret.New("Bearer d e f")},
	} {
		fields, ok := config.Tracing{Headers: secret.New(text)}.HeaderFields()
		require.True(t, ok, text)
		require.Equal(t, want, fields)
	}
	require.Empty(t, load(t, "").Tracing.Endpoint, "off by default")
}
