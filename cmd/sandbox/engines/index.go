package engines

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

type namespace struct{ db, collection string }

// lookups are the fields by which FerretDB finds a document through an index.
type lookups map[namespace][]string

// AddIndexes gives every existing collection the SQL indexes by which FerretDB finds documents: by id, and on PostgreSQL
// also by the fields for which the collection has indexes. With those that it makes itself FerretDB reads the whole
// collection for every update. A start indexes the collections that exist; call AddIndexes for later ones, where their
// size matters.
func (f *FerretDB) AddIndexes(ctx context.Context) error {
	f.proxy.writing.all.Lock()
	defer f.proxy.writing.all.Unlock()
	fields, err := f.addIndexes(ctx)
	if err != nil {
		return fmt.Errorf("adding indexes: %w", err)
	}
	f.proxy.setLookups(fields)
	return nil
}

func (f *FerretDB) addIndexes(ctx context.Context) (lookups, error) {
	if f.opts.PostgresURL != "" {
		return indexPostgres(ctx, f.opts.PostgresURL)
	}
	files, err := filepath.Glob(filepath.Join(f.opts.Dir, "*.sqlite"))
	if err != nil {
		return nil, err
	}
	fields := make(lookups)
	for _, file := range files {
		collections, err := indexSQLite(ctx, file)
		if err != nil {
			return nil, fmt.Errorf("database %s: %w", filepath.Base(file), err)
		}
		for _, name := range collections {
			fields[namespace{strings.TrimSuffix(filepath.Base(file), ".sqlite"), name}] = []string{"_id"}
		}
	}
	return fields, nil
}

// indexSQLite adds the missing indexes to the collections of one database, and names these.
func indexSQLite(ctx context.Context, file string) ([]string, error) {
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	tables, err := sqliteTables(ctx, db)
	if err != nil {
		return nil, err
	}
	for _, table := range tables {
		// Character for character the expression in FerretDB's queries: SQLite compares no further.
		stmt := fmt.Sprintf(`CREATE INDEX IF NOT EXISTS %s ON %s (_ferretdb_sjson->'$._id')`,
			quoteSQL(table+"_lookup"), quoteSQL(table))
		if _, err := db.ExecContext(ctx, stmt); err != nil {
			return nil, err
		}
	}
	return slices.Collect(maps.Keys(tables)), nil
}

func sqliteTables(ctx context.Context, db *sql.DB) (map[string]string, error) {
	rows, err := db.QueryContext(ctx, `SELECT name, table_name FROM _ferretdb_collections`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	tables := make(map[string]string)
	for rows.Next() {
		var name, table string
		if err := rows.Scan(&name, &table); err != nil {
			return nil, err
		}
		tables[name] = table
	}
	return tables, rows.Err()
}

func quoteSQL(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
