// Package store keeps grants in MongoDB, the source of truth: schedules and events are
// derived from it and can be made again.
//
// One grant is one document. Every change replaces the whole document if its revision
// is still the one that was read, so that no writer overwrites what it has not seen. No
// change needs more than one document to be atomic.
package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey/latchkey/events/secret"
)

var (
	// ErrNotFound: there is no such document.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the document has changed since it was read. Read it again and
	// decide anew; see Change.
	ErrConflict = errors.New("changed meanwhile")
	// ErrStale: a lease was requested on a former state of the grant.
	ErrStale = errors.New("out of date")
)

// LeasedError says that another holds the lease of a grant.
type LeasedError struct {
	// Until is when the lease runs out, by the clock of its holder.
	Until time.Time
}

func (e *LeasedError) Error() string { return "another worker holds the lease" }

// Options for Open.
type Options struct {
	URI      secret.Text
	Database string
	// Timeout bounds each operation with its retries.
	Timeout time.Duration
	// AppName appears in the server's logs and statistics.
	AppName string
	// Monitor, if set, observes every command.
	Monitor *event.CommandMonitor
}

// Store is the database. It is safe for concurrent use.
type Store struct {
	client     *mongo.Client
	hosts      []string
	tls        bool
	verified   bool
	overridden []string
	// open ends when the store is closed; beside is what runs until then.
	open       context.Context
	close      context.CancelFunc
	background sync.WaitGroup

	grants      *mongo.Collection
	revocations *mongo.Collection
	dataKeys    *mongo.Collection
	connectKeys *mongo.Collection
	meta        *mongo.Collection
	auditHeads  *mongo.Collection
	verdicts    *mongo.Collection
	workers     *mongo.Collection

	inserts          *batcher[bson.Raw, struct{}]
	clears           *batcher[mongo.WriteModel, struct{}]
	userReads        *batcher[userSearch, []*Grant]
	fingerprintReads *batcher[chainSearch, []*Grant]
	revokedReads     *batcher[[]string, map[string]time.Time]
}

// Open connects and checks that the server answers. Whatever the connection string
// says, reads go to the primary with read concern majority, and writes have write
// concern majority, so that a failover rolls back nothing that was reported done. See
// Overridden.
func Open(ctx context.Context, o Options) (*Store, error) {
	opts, overridden, err := clientOptions(o)
	if err != nil {
		return nil, err
	}
	client, err := mongo.Connect(opts)
	if err != nil {
		return nil, errors.New("mongodb.uri is not a usable connection string")
	}
	s := newStore(client, opts, o.Database)
	s.overridden = overridden
	if err := s.reach(ctx, opts.Direct != nil && *opts.Direct); err != nil {
		_ = client.Disconnect(ctx)
		return nil, err
	}
	return s, nil
}

// reach checks that the server answers, and that it is the primary.
func (s *Store) reach(ctx context.Context, direct bool) error {
	if err := s.Ping(ctx); err != nil {
		return fmt.Errorf("reaching MongoDB: %w", err)
	}
	if !direct {
		return nil
	}
	// A direct connection reads from any member.
	server, err := s.Server(ctx)
	if err == nil && server.Members > 1 {
		err = fmt.Errorf("mongodb.uri connects to one member of replica set %s, which may not be its primary: leave out directConnection and connect", server.ReplicaSet)
	}
	return err
}

// Overridden names the options of the connection string that have no effect, since they
// ask for less than the store guarantees or for other timeouts.
func (s *Store) Overridden() []string { return s.overridden }

func newStore(client *mongo.Client, opts *options.ClientOptions, database string) *Store {
	db := client.Database(database)
	s := &Store{
		client:      client,
		hosts:       opts.Hosts,
		tls:         opts.TLSConfig != nil,
		verified:    opts.TLSConfig != nil && !opts.TLSConfig.InsecureSkipVerify,
		grants:      db.Collection("grants"),
		revocations: db.Collection("revocations"),
		dataKeys:    db.Collection("data_keys"),
		connectKeys: db.Collection("connect_keys"),
		meta:        db.Collection("meta"),
		auditHeads:  db.Collection("audit_heads"),
		verdicts:    db.Collection("verdicts"),
		workers:     db.Collection("workers"),
	}
	s.open, s.close = context.WithCancel(context.Background())
	s.inserts = newBatcher("storing grants", s.insertAll)
	s.clears = newBatcher("clearing outboxes", s.clearAll)
	s.userReads = newBatcher("reading users' grants", s.byUsers)
	s.fingerprintReads = newBatcher("looking for the grants of refresh tokens", s.byFingerprints)
	s.revokedReads = newBatcher("reading disconnects", s.revokedAt)
	return s
}

const closeTimeout = 5 * time.Second

// Close ends the work in the background and the connections.
func (s *Store) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	s.close()
	s.background.Wait()
	return s.client.Disconnect(ctx)
}

// Ping checks that the server answers.
func (s *Store) Ping(ctx context.Context) error { return s.client.Ping(ctx, nil) }

func (s *Store) database() *mongo.Database { return s.grants.Database() }
