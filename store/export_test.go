package store

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// DeclaredIndexes returns the keys of the indexes that Ensure makes, by
// collection.
func DeclaredIndexes() map[string][][]string {
	all := map[string][][]string{}
	for _, i := range indexes {
		all[i.collection] = append(all[i.collection], i.keys)
	}
	return all
}

// InsertAll inserts grants by one command and returns what became of each.
func (s *Store) InsertAll(ctx context.Context, grants ...*Grant) []error {
	docs := make([]bson.Raw, len(grants))
	for i, g := range grants {
		raw, err := bson.Marshal(g)
		if err != nil {
			panic(err)
		}
		docs[i] = raw
	}
	errs := make([]error, len(grants))
	for i, o := range s.insertAll(ctx, docs) {
		errs[i] = o.err
	}
	return errs
}

// EnsureEvery is EnsureInBackground with another pause after a failure.
func (s *Store) EnsureEvery(pause time.Duration, failed func(error)) <-chan struct{} {
	return s.ensureInBackground(pause, failed)
}
