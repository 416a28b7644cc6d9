package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/latchkey/latchkey/events/secret"
)

var (
	// ErrNotFound: there is no such document.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the document is no longer the one that was read. Read it
	// again and decide anew.
	ErrConflict = errors.New("changed meanwhile")
	// ErrStale: a lease was asked for on a state of the grant that is past.
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
	// AppName shows in the server's logs and statistics.
	AppName string
	// Monitor, if set, is told of every command.
	Monitor *event.CommandMonitor
}

// Store is the database. It is safe for concurrent use.
type Store struct {
	client      *mongo.Client
	hosts       []string
	tls         bool
	grants      *mongo.Collection
	revocations *mongo.Collection
	dataKeys    *mongo.Collection
	connectKeys *mongo.Collection
	meta        *mongo.Collection
	auditHeads  *mongo.Collection

	inserts      gather[bson.Raw, struct{}]
	clears       gather[mongo.WriteModel, struct{}]
	userReads    gather[string, []*Grant]
	revokedReads gather[[]string, map[string]time.Time]
}

// Open connects and checks that the server answers. Writes are acknowledged by
// a majority, so that a failover takes back nothing that was reported done.
func Open(ctx context.Context, o Options) (*Store, error) {
	opts := options.Client().
		ApplyURI(o.URI.Reveal()).
		SetAppName(o.AppName).
		SetMonitor(o.Monitor).
		SetTimeout(o.Timeout).
		SetServerSelectionTimeout(o.Timeout).
		SetWriteConcern(writeconcern.Majority()).
		SetReadConcern(readconcern.Majority())
	if err := opts.Validate(); err != nil {
		return nil, errors.New("mongodb.uri is not a valid connection string") // the driver's error quotes the string
	}
	client, err := mongo.Connect(opts)
	if err != nil {
		return nil, errors.New("mongodb.uri is not a usable connection string")
	}
	if err := client.Ping(ctx, nil); err != nil {
		_ = client.Disconnect(ctx)
		return nil, fmt.Errorf("reaching MongoDB: %w", err)
	}
	db := client.Database(o.Database)
	s := &Store{
		client:      client,
		hosts:       opts.Hosts,
		tls:         opts.TLSConfig != nil,
		grants:      db.Collection("grants"),
		revocations: db.Collection("revocations"),
		dataKeys:    db.Collection("data_keys"),
		connectKeys: db.Collection("connect_keys"),
		meta:        db.Collection("meta"),
		auditHeads:  db.Collection("audit_heads"),
	}
	s.inserts.doing, s.inserts.run = "storing grants", s.insertAll
	s.clears.doing, s.clears.run = "clearing outboxes", s.clearAll
	s.userReads.doing, s.userReads.run = "reading users' grants", s.byUsers
	s.revokedReads.doing, s.revokedReads.run = "reading disconnects", s.revokedAt
	return s, nil
}

// Close ends the connections.
func (s *Store) Close(ctx context.Context) error { return s.client.Disconnect(ctx) }

// Ping checks that the server answers.
func (s *Store) Ping(ctx context.Context) error { return s.client.Ping(ctx, nil) }

// Ensure creates the collections and indexes that are missing. It may run on
// many workers at once.
func (s *Store) Ensure(ctx context.Context) error {
	// One at a time: FerretDB fails on a list of which several exist.
	for _, w := range indexes {
		if _, err := s.database().Collection(w.collection).Indexes().CreateOne(ctx, mongo.IndexModel{Keys: w.document()}); err != nil {
			return fmt.Errorf("creating the indexes of collection %s: %w", w.collection, err)
		}
	}
	return nil
}

func (s *Store) database() *mongo.Database { return s.grants.Database() }
