// Package enginestest gives tests a broker and a database: embedded ones of their own, or the real servers that
// LATCHKEY_TEST_NATS_URL and LATCHKEY_TEST_MONGODB_URI name. Tests that share a server keep apart by [Name].
package enginestest

import (
	"crypto/rand"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/engines"
)

// The environment variables that name real servers to test with.
const (
	NATSVariable    = "LATCHKEY_TEST_NATS_URL"
	MongoDBVariable = "LATCHKEY_TEST_MONGODB_URI"
)

// Broker is a NATS server for one test.
type Broker struct {
	t        testing.TB
	url      string
	embedded *engines.NATS // nil for a real server
}

// NATS starts a server that is stopped when the test ends, or names the one in LATCHKEY_TEST_NATS_URL.
func NATS(t testing.TB) *Broker {
	t.Helper()
	if url := os.Getenv(NATSVariable); url != "" {
		return &Broker{t: t, url: url}
	}
	return NATSWith(t, engines.NATSOptions{})
}

// NATSWith starts an embedded server whatever the environment says.
func NATSWith(t testing.TB, opts engines.NATSOptions) *Broker {
	t.Helper()
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	n, err := engines.StartNATS(opts)
	require.NoError(t, err)
	t.Cleanup(n.Stop)
	return &Broker{t: t, url: n.URL(), embedded: n}
}

func (b *Broker) URL() string { return b.url }

// Embedded returns the server itself; the test is skipped if it uses a real one.
func (b *Broker) Embedded() *engines.NATS {
	b.t.Helper()
	if b.embedded == nil {
		b.t.Skipf("needs an embedded NATS server, not the one in %s", NATSVariable)
	}
	return b.embedded
}

// Stop stops the server; the test is skipped if it uses a real one. See [engines.NATS.Stop].
func (b *Broker) Stop() {
	b.t.Helper()
	b.Embedded().Stop()
}

// Restart starts the server again; the test is skipped if it uses a real one. See [engines.NATS.Restart].
func (b *Broker) Restart() {
	b.t.Helper()
	require.NoError(b.t, b.Embedded().Restart())
}

// Wipe stops the server and deletes its data; the test is skipped if it uses a real one. See [engines.NATS.Wipe].
func (b *Broker) Wipe() {
	b.t.Helper()
	require.NoError(b.t, b.Embedded().Wipe())
}

// Database is a MongoDB server for one test.
type Database struct {
	t        testing.TB
	uri      string
	embedded *engines.FerretDB // nil for a real server
}

// MongoDB starts a server that is stopped when the test ends, or names the one in LATCHKEY_TEST_MONGODB_URI.
func MongoDB(t testing.TB) *Database {
	t.Helper()
	if uri := os.Getenv(MongoDBVariable); uri != "" {
		return &Database{t: t, uri: uri}
	}
	return MongoDBWith(t, engines.FerretDBOptions{})
}

// MongoDBWith starts an embedded server whatever the environment says.
func MongoDBWith(t testing.TB, opts engines.FerretDBOptions) *Database {
	t.Helper()
	if opts.Dir == "" && opts.PostgresURL == "" {
		opts.Dir = t.TempDir()
	}
	f, err := engines.StartFerretDB(opts)
	require.NoError(t, err)
	t.Cleanup(f.Stop)
	return &Database{t: t, uri: f.URI(), embedded: f}
}

// URI returns the address for clients, with what their driver needs to know.
func (d *Database) URI() string { return d.uri }

// Embedded returns the server itself; the test is skipped if it uses a real one.
func (d *Database) Embedded() *engines.FerretDB {
	d.t.Helper()
	if d.embedded == nil {
		d.t.Skipf("needs an embedded database, not the one in %s", MongoDBVariable)
	}
	return d.embedded
}

// Proxy returns what makes the server fail; the test is skipped if it uses a real one.
func (d *Database) Proxy() *engines.Proxy {
	d.t.Helper()
	return d.Embedded().Proxy()
}

// Stop stops the server; the test is skipped if it uses a real one. See [engines.FerretDB.Stop].
func (d *Database) Stop() {
	d.t.Helper()
	d.Embedded().Stop()
}

// Restart starts the server again; the test is skipped if it uses a real one. See [engines.FerretDB.Restart].
func (d *Database) Restart() {
	d.t.Helper()
	require.NoError(d.t, d.Embedded().Restart())
}

// maxName leaves room for a prefix in the 63 bytes of a MongoDB database's name.
const maxName = 40

// Name returns a unique name made from the test's: at most 40 letters, digits and underscores, fit for a database, a
// stream, or a token of a subject.
func Name(t testing.TB) string {
	suffix := "_" + strings.ToLower(rand.Text()[:10])
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, t.Name())
	return name[:min(len(name), maxName-len(suffix))] + suffix
}
