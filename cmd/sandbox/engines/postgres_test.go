package engines_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
)

func TestPostgresKeepsItsDataAcrossARestart(t *testing.T) {
	enginestest.Postgres(t) // skips where there is none

	dir, err := os.MkdirTemp("", "latchkey-postgres-") //nolint:usetesting // PostgreSQL may run as a user to whom t.TempDir is closed
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	name := enginestest.Name(t)
	for run := range 2 {
		p, err := engines.StartPostgres(t.Context(), dir)
		require.NoError(t, err)
		db := enginestest.MongoDBWith(t, engines.FerretDBOptions{PostgresURL: p.URL()})
		client := connect(t, db.URI())
		c := client.Database(name).Collection("grants")
		if run == 0 {
			insertGrant(t, c, "g")
		}
		require.Equal(t, 0, version(t, c, "g"))
		require.NoError(t, client.Disconnect(t.Context())) // while there is a server to say goodbye to
		db.Stop()
		p.Stop()
		p.Stop()
	}
}

func TestPostgresReportsWhyItDoesNotStart(t *testing.T) {
	enginestest.Postgres(t)

	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "PG_VERSION"), []byte("1"), 0o600))
	_, err := engines.StartPostgres(t.Context(), dir)
	require.ErrorContains(t, err, "starting PostgreSQL")
}

func TestPostgresUpdatesADocumentAtomically(t *testing.T) {
	db := enginestest.MongoDBWith(t, engines.FerretDBOptions{PostgresURL: enginestest.Postgres(t).URL()})
	contend(t, db.URI(), 25, func(won int) bool {
		require.Equal(t, 1, won, "one worker of each round wins")
		return false
	})
}
