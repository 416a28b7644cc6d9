package engines

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// FerretDB asks PostgreSQL for documents by containment (@>), which a GIN index answers. The indexes that it makes itself
// are b-trees, of which it only uses those of ids and unique fields, while every write has to maintain all of them. Those
// of one field at the top level are exchanged for GIN indexes, all others for empty indexes: FerretDB does not pass
// conditions on nested fields on to PostgreSQL. They keep their names, so that FerretDB can measure and drop them.

// Without fastupdate, or lookups also read the list of entries that wait to be merged.
const ginIndex = `CREATE INDEX %s ON %s USING gin ((_jsonb->%s) jsonb_path_ops) WITH (fastupdate = off)`

// postgresCollection is FerretDB's metadata of a collection.
type postgresCollection struct {
	schema  string
	Name    string          `json:"_id"`
	Table   string          `json:"table"`
	Indexes []postgresIndex `json:"indexes"`
}

type postgresIndex struct {
	Name   string           `json:"pgindex"`
	Key    map[string]int32 `json:"key"`
	Unique bool             `json:"unique"`
}

// field returns the field of an index of one field at the top level.
func (i postgresIndex) field() (string, bool) {
	for field := range i.Key {
		return field, len(i.Key) == 1 && !strings.Contains(field, ".")
	}
	return "", false
}

func (c postgresCollection) table() string { return pgx.Identifier{c.schema, c.Table}.Sanitize() }

// indexPostgres makes useful indexes for the collections of all databases, and returns the fields that they serve.
func indexPostgres(ctx context.Context, url string) (lookups, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	// An index cannot be exchanged while a cursor is open on its collection, which may be for ever.
	config.ConnConfig.RuntimeParams["lock_timeout"] = "20s"
	conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	collections, err := postgresCollections(ctx, conn)
	if err != nil {
		return nil, err
	}
	fields := make(lookups)
	for _, c := range collections {
		if fields[namespace{c.schema, c.Name}], err = indexPostgresCollection(ctx, conn, c); err != nil {
			return nil, fmt.Errorf("collection %s: %w", c.Name, err)
		}
	}
	return fields, nil
}

func postgresCollections(ctx context.Context, conn *pgx.Conn) ([]postgresCollection, error) {
	const metadata = "_ferretdb_database_metadata"
	rows, err := conn.Query(ctx, `SELECT schemaname FROM pg_tables WHERE tablename = $1`, metadata)
	if err != nil {
		return nil, err
	}
	schemas, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	var all []postgresCollection
	for _, schema := range schemas {
		rows, err := conn.Query(ctx, `SELECT _jsonb FROM `+pgx.Identifier{schema, metadata}.Sanitize())
		if err != nil {
			return nil, err
		}
		collections, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c postgresCollection, err error) {
			err = row.Scan(&c)
			c.schema = schema
			return c, err
		})
		if err != nil {
			return nil, err
		}
		all = append(all, collections...)
	}
	return all, nil
}

// indexPostgresCollection makes the indexes of one collection useful, and returns the fields that they serve.
func indexPostgresCollection(ctx context.Context, conn *pgx.Conn, c postgresCollection) ([]string, error) {
	present, err := postgresIndexes(ctx, conn, c)
	if err != nil {
		return nil, err
	}
	const byID = "latchkey_id"
	if _, ok := present[c.Table+byID]; !ok {
		create := fmt.Sprintf(ginIndex, pgx.Identifier{c.Table + byID}.Sanitize(), c.table(), "'_id'")
		if _, err := conn.Exec(ctx, create); err != nil {
			return nil, err
		}
	}
	served := []string{"_id"}
	for _, index := range c.Indexes {
		if index.Unique {
			continue
		}
		name := pgx.Identifier{index.Name}.Sanitize()
		create := fmt.Sprintf(`CREATE INDEX %s ON %s ((0)) WHERE false`, name, c.table())
		if field, ok := index.field(); ok {
			served = append(served, field)
			create = fmt.Sprintf(ginIndex, name, c.table(), "'"+strings.ReplaceAll(field, "'", "''")+"'")
		}
		if !strings.Contains(present[index.Name], "USING btree") || strings.HasSuffix(present[index.Name], "WHERE false") {
			continue // exchanged already
		}
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `DROP INDEX `+pgx.Identifier{c.schema, index.Name}.Sanitize()+`; `+create)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return served, nil
}

func postgresIndexes(ctx context.Context, conn *pgx.Conn, c postgresCollection) (map[string]string, error) {
	rows, err := conn.Query(ctx, `SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = $1 AND tablename = $2`, c.schema, c.Table)
	if err != nil {
		return nil, err
	}
	present := make(map[string]string)
	var name, definition string
	_, err = pgx.ForEachRow(rows, []any{&name, &definition}, func() error {
		present[name] = definition
		return nil
	})
	return present, err
}
