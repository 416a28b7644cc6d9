package engines

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

// AddIndexes gives every collection that exists the SQL index by which FerretDB finds a document by its id. The one that
// FerretDB makes itself is on another expression than the one that it asks for, so it reads the whole collection for
// every document that it updates. Collections that exist at a start get theirs then; call AddIndexes for those made
// since, where their size matters.
func (f *FerretDB) AddIndexes(ctx context.Context) error {
	f.proxy.writing.all.Lock()
	defer f.proxy.writing.all.Unlock()
	if f.opts.PostgresURL != "" {
		return indexPostgres(ctx, f.opts.PostgresURL)
	}
	files, err := filepath.Glob(filepath.Join(f.opts.Dir, "*.sqlite"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := indexSQLite(ctx, file); err != nil {
			return fmt.Errorf("adding indexes to %s: %w", filepath.Base(file), err)
		}
	}
	return nil
}

// indexSQLite adds the missing indexes to the collections of one database.
func indexSQLite(ctx context.Context, file string) error {
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	defer db.Close()
	tables, err := sqliteTables(ctx, db)
	if err != nil {
		return err
	}
	for _, table := range tables {
		// Character for character the expression in FerretDB's queries: SQLite compares no further.
		stmt := fmt.Sprintf(`CREATE INDEX IF NOT EXISTS %s ON %s (_ferretdb_sjson->'$._id')`,
			quoteSQL(table+"_lookup"), quoteSQL(table))
		if _, err := db.ExecContext(ctx, stmt); err != nil {
			return err
		}
	}
	return nil
}

func sqliteTables(ctx context.Context, db *sql.DB) ([]string, error) {
	rows, err := db.QueryContext(ctx, `SELECT table_name FROM _ferretdb_collections`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var tables []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		tables = append(tables, name)
	}
	return tables, rows.Err()
}

func quoteSQL(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// indexPostgres adds the missing indexes to the collections of all databases. FerretDB asks for documents by containment
// (@>), which is what a GIN index answers.
func indexPostgres(ctx context.Context, url string) error {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("adding indexes: %w", err)
	}
	conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return fmt.Errorf("adding indexes: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, `
		SELECT schemaname, tablename FROM pg_tables t
		WHERE tablename NOT LIKE '\_ferretdb%'
		AND EXISTS (SELECT FROM pg_tables m
			WHERE m.schemaname = t.schemaname AND m.tablename = '_ferretdb_database_metadata')
		AND NOT EXISTS (SELECT FROM pg_indexes i
			WHERE i.schemaname = t.schemaname AND i.tablename = t.tablename AND i.indexdef LIKE '%USING gin%')`)
	if err != nil {
		return fmt.Errorf("adding indexes: %w", err)
	}
	tables, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (pgx.Identifier, error) {
		var schema, table string
		err := row.Scan(&schema, &table)
		return pgx.Identifier{schema, table}, err
	})
	if err != nil {
		return fmt.Errorf("adding indexes: %w", err)
	}
	for _, table := range tables {
		// Without fastupdate, or lookups also read the list of entries that wait to be merged.
		_, err := conn.Exec(ctx, fmt.Sprintf(
			`CREATE INDEX ON %s USING gin ((_jsonb->'_id') jsonb_path_ops) WITH (fastupdate = off)`, table.Sanitize()))
		if err != nil {
			return fmt.Errorf("adding indexes: %w", err)
		}
	}
	return nil
}
