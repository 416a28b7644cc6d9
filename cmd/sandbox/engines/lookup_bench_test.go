package engines_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
)

// benchmark runs f against collections of documents of 2 KB, in both of FerretDB's stores.
func benchmark(b *testing.B, f func(b *testing.B, c *mongo.Collection, size int)) {
	for _, store := range []string{"sqlite", "postgresql"} {
		for _, size := range []int{2_000, 20_000} {
			b.Run(fmt.Sprintf("%s/%d", store, size), func(b *testing.B) {
				var opts engines.FerretDBOptions
				if store == "postgresql" {
					opts.PostgresURL = enginestest.Postgres(b).URL()
				}
				db := enginestest.MongoDBWith(b, opts)
				c := grants(b, db)
				fill(b, c, size)
				require.NoError(b, db.Embedded().AddIndexes(b.Context()))
				b.ResetTimer()
				f(b, c, size)
			})
		}
	}
}

func grantID(i int) string { return fmt.Sprintf("grant-%06d", i) }

func fill(t testing.TB, c *mongo.Collection, size int) {
	t.Helper()
	blob := strings.Repeat("x", 2_000)
	for from := 0; from < size; from += 1_000 {
		var docs []any
		for i := from; i < min(from+1_000, size); i++ {
			docs = append(docs, object{{Key: "_id", Value: grantID(i)}, {Key: "version", Value: 0}, {Key: "blob", Value: blob}})
		}
		_, err := c.InsertMany(t.Context(), docs)
		require.NoError(t, err)
	}
}

func BenchmarkFindByID(b *testing.B) {
	benchmark(b, func(b *testing.B, c *mongo.Collection, size int) {
		for i := range b.N {
			require.NoError(b, c.FindOne(b.Context(), object{{Key: "_id", Value: grantID(i * 7919 % size)}}).Err())
		}
	})
}

func BenchmarkConditionalUpdate(b *testing.B) {
	benchmark(b, func(b *testing.B, c *mongo.Collection, size int) {
		for i := range b.N {
			require.NoError(b, setVersion(b.Context(), c, grantID(i*7919%size), i/size))
		}
	})
}
