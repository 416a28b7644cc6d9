package store

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

func byID(id any) bson.D { return bson.D{{Key: "_id", Value: id}} }

func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}

// decodeOne decodes a document. missing is the error where there is none. The driver's own
// Decode reads the document from a stream, with half as many allocations again.
func decodeOne[T any](found *mongo.SingleResult, missing error, format string, args ...any) (doc T, err error) {
	raw, err := found.Raw()
	if err == nil {
		err = bson.Unmarshal(raw, &doc)
	}
	if errors.Is(err, mongo.ErrNoDocuments) {
		return doc, missing
	}
	return doc, wrap(err, format, args...)
}

func decodeAll[T any](ctx context.Context, cursor *mongo.Cursor, err error, doing string) (all []T, _ error) {
	if err == nil {
		err = cursor.All(ctx, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	return all, nil
}

// matched turns an update that found no document into ErrConflict.
func matched(result *mongo.UpdateResult, err error) error {
	if err == nil && result.MatchedCount == 0 {
		return ErrConflict
	}
	return err
}
