package enginestest

import (
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
)

// Postgres starts a PostgreSQL server that is stopped when the test ends, for [engines.FerretDBOptions]. The test is
// skipped where none is installed.
func Postgres(t testing.TB) *engines.Postgres {
	t.Helper()
	p := IfPostgres(t)
	if p == nil {
		t.Skip(engines.ErrNoPostgres)
	}
	return p
}

// IfPostgres is Postgres for tests that can do without: it returns nil where none is installed.
func IfPostgres(t testing.TB) *engines.Postgres {
	t.Helper()
	dir, err := os.MkdirTemp("", "latchkey-postgres-") //nolint:usetesting // PostgreSQL may run as a user to whom t.TempDir is closed
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })

	p, err := engines.StartPostgres(t.Context(), dir)
	if errors.Is(err, engines.ErrNoPostgres) {
		return nil
	}
	require.NoError(t, err)
	t.Cleanup(p.Stop)
	return p
}
