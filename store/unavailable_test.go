package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
)

// shapes are the ways in which MongoDB states an error with a code. The driver
// makes other types of them for other calls.
var shapes = map[string]func(code int) bson.D{
	"command": func(code int) bson.D {
		return bson.D{{Key: "ok", Value: 0}, {Key: "code", Value: code}, {Key: "errmsg", Value: "no"}}
	},
	"write": func(code int) bson.D {
		return bson.D{{Key: "ok", Value: 1}, {Key: "n", Value: 0}, {Key: "writeErrors", Value: bson.A{
			bson.D{{Key: "index", Value: 0}, {Key: "code", Value: code}, {Key: "errmsg", Value: "no"}},
		}}}
	},
	"write concern": func(code int) bson.D {
		return append(wellAnswered(""), bson.E{Key: "writeConcernError", Value: bson.D{{Key: "code", Value: code}, {Key: "errmsg", Value: "no"}}})
	},
}

// takes reports whether a command is answered in a shape.
func takes(command, shape string) bool {
	switch command {
	case "insert", "update", "delete":
		return true
	case "findAndModify", "createIndexes":
		return shape != "write"
	}
	return shape == "command"
}

func TestADatabaseThatCannotNowIsToldFromAFault(t *testing.T) {
	member := replicaSet(t, 1)[0]
	// Errors that the driver has heard of already don't make it look for another
	// primary first, which takes it half a second.
	version := bson.E{Key: "topologyVersion", Value: bson.D{{Key: "processId", Value: bson.NewObjectID()}, {Key: "counter", Value: int64(1)}}}
	member.hello = append(member.hello, version)
	s := connect(t, store.Options{
		URI:      secret.New("mongodb://" + member.addr + "/?retryWrites=false&retryReads=false&serverMonitoringMode=poll"),
		Database: "d", Timeout: time.Minute,
	})
	methods := calls(s)
	methods["Ensure"] = s.Ensure
	methods["MissingIndexes"] = func(ctx context.Context) error { _, err := s.MissingIndexes(ctx); return err }
	methods["Version"] = func(ctx context.Context) error { _, err := s.Version(ctx); return err }
	for shape, reply := range shapes {
		for code, passes := range map[int]bool{
			50: true, 64: true, 91: true, 100: true, 189: true, 11602: true,
			6: true, 7: true, 89: true, 9001: true, 262: true, 10107: true, 11600: true, 13435: true, 13436: true, 134: true,
			2: false, 13: false, 121: false, 10334: false, 59: false,
		} {
			passes = passes || shape == "write concern" // a majority may be there next time
			for name, call := range methods {
				var failed atomic.Bool
				member.answerWith(func(command string) bson.D {
					if !takes(command, shape) {
						return wellAnswered(command)
					}
					failed.Store(true)
					return append(reply(code), version)
				})
				err := call(t.Context())
				if failed.Load() {
					require.Error(t, err, "%s: %s error %d", name, shape, code)
					require.Equal(t, passes, store.Unavailable(err), "%s: %s error %d: %T %v", name, shape, code, errors.Unwrap(err), err)
					require.NotErrorIs(t, err, store.ErrConflict, "%s: %s error %d", name, shape, code)
					require.NotErrorIs(t, err, store.ErrNotFound, "%s: %s error %d", name, shape, code)
				}
			}
		}
	}
}

// What becomes of one insert is told for itself, also where a majority lacks.
func TestGatheredInsertsAreToldApart(t *testing.T) {
	member := replicaSet(t, 1)[0]
	s := connect(t, store.Options{URI: secret.New("mongodb://" + member.addr), Database: "d", Timeout: time.Minute})
	member.answerWith(func(string) bson.D {
		return bson.D{
			{Key: "ok", Value: 1},
			{Key: "n", Value: 1},
			{Key: "writeErrors", Value: bson.A{
				bson.D{{Key: "index", Value: 0}, {Key: "code", Value: 11000}, {Key: "errmsg", Value: "duplicate"}},
				bson.D{{Key: "index", Value: 1}, {Key: "code", Value: 121}, {Key: "errmsg", Value: "not valid"}},
			}},
			{Key: "writeConcernError", Value: bson.D{{Key: "code", Value: 64}, {Key: "errmsg", Value: "timeout"}}},
		}
	})
	errs := s.InsertAll(t.Context(), active("taken"), active("bad"), active("good"))
	require.True(t, mongo.IsDuplicateKeyError(errs[0]))
	require.True(t, store.Unavailable(errs[0]), "reads don't see what no majority has")
	require.NotErrorIs(t, s.Insert(t.Context(), active("taken")), store.ErrConflict)
	require.False(t, store.Unavailable(errs[1]))
	require.True(t, store.Unavailable(errs[2]))

	member.answerWith(func(string) bson.D { return shapes["write"](11000) })
	err := s.Insert(t.Context(), active("taken"))
	require.ErrorIs(t, err, store.ErrConflict)
	require.False(t, store.Unavailable(err))

	member.answerWith(wellAnswered)
	for _, err := range s.InsertAll(t.Context(), active("a"), active("b")) {
		require.NoError(t, err)
	}
}

func TestErrorsThatAreNotOfTheDatabase(t *testing.T) {
	for _, err := range []error{
		nil, errors.New("a fault"), store.ErrConflict, store.ErrNotFound, store.ErrStale, &store.LeasedError{}, mongo.ErrNoDocuments,
	} {
		require.False(t, store.Unavailable(err), "%v", err)
	}
	for _, err := range []error{
		mongo.ErrClientDisconnected, context.DeadlineExceeded,
		mongo.CommandError{Labels: []string{"NetworkError"}},
		mongo.CommandError{Labels: []string{"RetryableWriteError"}, Code: 1},
		mongo.WriteException{WriteConcernError: &mongo.WriteConcernError{Code: 64}},
		mongo.BulkWriteException{WriteConcernError: &mongo.WriteConcernError{Code: 100}},
	} {
		require.True(t, store.Unavailable(fmt.Errorf("wrapped: %w", err)), "%v", err)
	}
}
