package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey/latchkey/events/pause"
)

// index is an index that a query of this package needs.
type index struct {
	collection string
	keys       []string
}

// Indexes of lists end with the id, so that a list can continue at a place.
var indexes = []index{
	{"grants", []string{"user"}},                                       // a user's grants
	{"grants", []string{"due.at", "_id"}},                              // overdue grants
	{"grants", []string{"due.stream", "due.at", "_id"}},                // grants without a schedule in the present stream
	{"grants", []string{"outbox.since", "_id"}},                        // unsent events
	{"grants", []string{"purgeAt", "_id"}},                             // records to drop
	{"grants", []string{"removal.due", "_id"}},                         // removals at Mesh
	{"grants", []string{"state", "warned", "access.expiresAt", "_id"}}, // access tokens about to end
	{"grants", []string{"accountsDue", "_id"}},                         // single accounts with something due
	{"grants", []string{"sealed.key", "_id"}},                          // what a data key has sealed
	{"grants", []string{"state", "broker", "_id"}},                     // how many there are of each, and which
	{"grants", []string{"failing.at", "_id"}},                          // grants whose last refresh failed
	{"grants", []string{"fingerprints"}},                               // grants that hold a refresh token
	{"grants", []string{"chain.key", "_id"}},                           // grants without fingerprints
	{"revocations", []string{"purgeAt"}},
	{"data_keys", []string{"createdAt"}},
	{"data_keys", []string{"scope", "createdAt"}},
	{"audit_heads", []string{"purgeAt"}},
}

func (i index) document() bson.D {
	doc := bson.D{}
	for _, k := range i.keys {
		doc = append(doc, bson.E{Key: k, Value: 1})
	}
	return doc
}

func (i index) String() string { return i.collection + "(" + strings.Join(i.keys, ", ") + ")" }

// indexDeadline bounds the build of one index. The server aborts a longer build, and
// the next one begins anew.
const indexDeadline = 24 * time.Hour

// Ensure creates the missing indexes, and with them the collections. On large
// collections that takes minutes to hours, whatever Options.Timeout says. Meanwhile
// all work continues, only slower: no index is needed for correctness. Many workers may
// call it at once.
func (s *Store) Ensure(ctx context.Context) error {
	missing, err := s.missingIndexes(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for _, wanted := range missing { // one at a time: FerretDB fails on a list of which several exist
		if err := s.createIndex(ctx, wanted); err != nil {
			failed = append(failed, fmt.Errorf("creating the indexes of collection %s: %w", wanted.collection, err))
		}
	}
	return errors.Join(failed...)
}

func (s *Store) createIndex(ctx context.Context, i index) error {
	ctx, cancel := context.WithTimeout(ctx, indexDeadline) // in place of the client's
	defer cancel()
	_, err := s.database().Collection(i.collection).Indexes().CreateOne(ctx, mongo.IndexModel{Keys: i.document()})
	return err
}

// indexPause is how long EnsureInBackground waits after a failure.
const indexPause = time.Minute

// EnsureInBackground runs Ensure in the background until it succeeds or the store is closed,
// and calls failed after each failure. It closes the returned channel when all indexes
// are there.
func (s *Store) EnsureInBackground(failed func(error)) (done <-chan struct{}) {
	return s.ensureInBackground(indexPause, failed)
}

func (s *Store) ensureInBackground(wait time.Duration, failed func(error)) <-chan struct{} {
	done := make(chan struct{})
	s.background.Go(func() {
		for {
			err := s.Ensure(s.open)
			if err == nil {
				close(done)
				return
			}
			if s.open.Err() != nil {
				return
			}
			failed(err)
			if pause.For(s.open, wait) != nil {
				return
			}
		}
	})
	return done
}

// MissingIndexes names the indexes that Ensure would create.
func (s *Store) MissingIndexes(ctx context.Context) ([]string, error) {
	missing, err := s.missingIndexes(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range missing {
		names = append(names, i.String())
	}
	return names, nil
}

func (s *Store) missingIndexes(ctx context.Context) ([]index, error) {
	present := map[string]map[string]bool{}
	var missing []index
	for _, wanted := range indexes {
		if present[wanted.collection] == nil {
			specs, err := s.database().Collection(wanted.collection).Indexes().ListSpecifications(ctx)
			if err != nil {
				return nil, fmt.Errorf("listing the indexes of collection %s: %w", wanted.collection, err)
			}
			present[wanted.collection] = map[string]bool{}
			for _, spec := range specs {
				present[wanted.collection][keysOf(spec.KeysDocument)] = true
			}
		}
		if !present[wanted.collection][strings.Join(wanted.keys, ",")] {
			missing = append(missing, wanted)
		}
	}
	return missing, nil
}

func keysOf(document bson.Raw) string {
	elements, err := document.Elements()
	if err != nil {
		return ""
	}
	keys := make([]string, len(elements))
	for i, e := range elements {
		keys[i] = e.Key()
	}
	return strings.Join(keys, ",")
}
