package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
)

func TestMissingIndexesAreNamed(t *testing.T) {
	t.Parallel()
	s := connect(t, options(t, enginestest.MongoDB(t)))
	missing, err := s.MissingIndexes(t.Context())
	require.NoError(t, err)
	require.Contains(t, missing, "grants(due.stream, due.at)")
	require.NoError(t, s.Ensure(t.Context()))
	missing, err = s.MissingIndexes(t.Context())
	require.NoError(t, err)
	require.Empty(t, missing)
}
