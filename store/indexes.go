package store

import (
	"context"
	"fmt"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// index is an index that a query of this package needs.
type index struct {
	collection string
	keys       []string
}

var indexes = []index{
	{"grants", []string{"user"}},                 // a user's grants
	{"grants", []string{"due.at"}},               // overdue grants
	{"grants", []string{"due.stream", "due.at"}}, // grants without a schedule in the present stream
	{"grants", []string{"outbox.since"}},         // unsent events
	{"grants", []string{"purgeAt"}},              // records to drop
	{"grants", []string{"sealed.key"}},           // what a data key has sealed
	{"grants", []string{"state", "broker"}},      // how many there are of each
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

// MissingIndexes names the indexes that Ensure would create.
func (s *Store) MissingIndexes(ctx context.Context) ([]string, error) {
	present := map[string]map[string]bool{}
	var missing []string
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
			missing = append(missing, wanted.String())
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
