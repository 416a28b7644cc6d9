package cli

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnEventThatNoWorkerWroteIsToldSafely(t *testing.T) {
	for _, output := range []format{asTable, asJSON} {
		var out strings.Builder
		require.NoError(t, showEvent(&out, []byte("{\x1b[2J"), output))
		require.Contains(t, out.String(), "no worker wrote")
		require.NotContains(t, out.String(), "\x1b")
	}
}
