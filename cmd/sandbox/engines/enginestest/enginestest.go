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

// server is a server for one test. What needs an embedded one skips a test that uses a
// real one.
type server[E interface {
	comparable
	Stop()
	Restart() error
}] struct {
	t        testing.TB
	url      string
	embedded E // nil for a real server
}

func (s server[E]) Embedded() E {
	s.t.Helper()
	var none E
	if s.embedded == none {
		s.t.Skipf("needs an embedded server (%T), not a real one", none)
	}
	return s.embedded
}

func (s server[E]) Stop() {
	s.t.Helper()
	s.Embedded().Stop()
}

func (s server[E]) Restart() {
	s.t.Helper()
	require.NoError(s.t, s.Embedded().Restart())
}

// Broker is a NATS server for one test.
type Broker struct{ server[*engines.NATS] }

// NATS starts a server that is stopped when the test ends, or names the one in LATCHKEY_TEST_NATS_URL.
func NATS(t testing.TB) *Broker {
	t.Helper()
	if url := os.Getenv(NATSVariable); url != "" {
		return &Broker{server[*engines.NATS]{t: t, url: url}}
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
	return &Broker{server[*engines.NATS]{t, n.URL(), n}}
}

// URL returns the address for clients.
func (b *Broker) URL() string { return b.url }

func (b *Broker) Wipe() {
	b.t.Helper()
	require.NoError(b.t, b.Embedded().Wipe())
}

// Database is a MongoDB server for one test.
type Database struct{ server[*engines.FerretDB] }

// MongoDB starts a server that is stopped when the test ends, or names the one in LATCHKEY_TEST_MONGODB_URI.
func MongoDB(t testing.TB) *Database {
	t.Helper()
	if uri := os.Getenv(MongoDBVariable); uri != "" {
		return &Database{server[*engines.FerretDB]{t: t, url: uri}}
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
	return &Database{server[*engines.FerretDB]{t, f.URI(), f}}
}

// URI returns the address for clients, with what their driver needs to know.
func (d *Database) URI() string { return d.url }

// Proxy returns what makes the server fail.
func (d *Database) Proxy() *engines.Proxy {
	d.t.Helper()
	return d.Embedded().Proxy()
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
