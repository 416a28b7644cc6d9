package store

import (
	"context"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// sealedIn lists the collections whose documents have a field "sealed". A
// collection that is missing here loses its data keys to pruning.
var sealedIn = []string{"grants", "connect_keys", "meta"}

const sealedKey = "sealed.key"

// TokenSets returns how many token sets are sealed under each data key.
func (s *Store) TokenSets(ctx context.Context) (map[string]int, error) {
	cursor, err := s.grants.Aggregate(ctx, bson.A{
		bson.D{{Key: "$match", Value: bson.D{{Key: sealedKey, Value: bson.D{{Key: "$gt", Value: ""}}}}}},
		bson.D{{Key: "$group", Value: bson.D{{Key: "_id", Value: "$" + sealedKey}, {Key: "sets", Value: bson.D{{Key: "$sum", Value: 1}}}}}},
	})
	type group struct {
		Key  string `bson:"_id"`
		Sets int    `bson:"sets"`
	}
	groups, err := decodeAll[group](ctx, cursor, err, "counting token sets by data key")
	if err != nil {
		return nil, err
	}
	sets := make(map[string]int, len(groups))
	for _, g := range groups {
		sets[g.Key] = g.Sets
	}
	return sets, nil
}

// KeyUses returns how many documents of each collection are sealed under a data
// key, without the collections that have none.
func (s *Store) KeyUses(ctx context.Context, id string) (map[string]int, error) {
	uses := map[string]int{}
	for _, name := range sealedIn {
		n, err := s.database().Collection(name).CountDocuments(ctx, bson.D{{Key: sealedKey, Value: id}})
		if err != nil {
			return nil, fmt.Errorf("looking in %s for what data key %s has sealed: %w", name, id, err)
		}
		if n > 0 {
			uses[name] = int(n)
		}
	}
	return uses, nil
}
