package store

import (
	"errors"
	"slices"

	"go.mongodb.org/mongo-driver/v2/mongo"
)

// unavailable are MongoDB's codes for failures after which the same command may succeed:
// those on which drivers retry or look for another primary, and those of a server that
// had no time, no majority or no space.
var unavailable = map[int]bool{
	6: true, 7: true, 89: true, 9001: true, 384: true, // other servers not reached
	18: true,            // the credentials are not accepted: it concerns every command
	50: true, 262: true, // MaxTimeMSExpired, ExceededTimeLimit
	202: true,            // NetworkInterfaceExceededTimeLimit
	64:  true, 100: true, // no majority in time, or not enough members
	91: true, 189: true, 10107: true, 10058: true, 11600: true, 11602: true, 13435: true, 13436: true, // failover, shutdown
	43: true, 133: true, 134: true, 175: true, 234: true, // CursorNotFound, reads during a failover
	63: true, 150: true, 13388: true, // a router that must learn where a shard is
	14031: true, // OutOfDiskSpace
}

// retryableLabels are the labels for such failures.
var retryableLabels = []string{
	"NetworkError", "RetryableWriteError", "RetryableError", "TransientTransactionError", "SystemOverloadedError",
}

// Unavailable reports whether an error of the store means that the same call may succeed
// later: the database can't be reached, has no primary or no majority, or ran out of
// time. A write may have happened. It is false for errors of the command itself and for
// missing permissions.
func Unavailable(err error) bool {
	if mongo.IsNetworkError(err) || mongo.IsTimeout(err) || errors.Is(err, mongo.ErrClientDisconnected) {
		return true
	}
	var one mongo.WriteException
	var bulk mongo.BulkWriteException
	var server mongo.ServerError
	switch {
	case errors.As(err, &one):
		return writeUnavailable(one, one.WriteConcernError, codesOf(one.WriteErrors))
	case errors.As(err, &bulk):
		return writeUnavailable(bulk, bulk.WriteConcernError, codesOf(bulk.WriteErrors))
	case errors.As(err, &server):
		return hasRetryableLabel(server) || allRetryable(server.ErrorCodes())
	}
	return false
}

// writeUnavailable judges the errors of a write. A statement that failed for good fails
// again. A write concern error, whatever its code, says that no majority has
// acknowledged the write yet. A duplicate key without a majority is that of a document
// that reads don't see yet, and may never see.
func writeUnavailable(labels mongo.LabeledError, concern *mongo.WriteConcernError, codes []int) bool {
	if len(codes) > 0 {
		return allRetryable(codes) || concern != nil && !slices.ContainsFunc(codes, func(code int) bool { return code != duplicateKey })
	}
	return concern != nil || hasRetryableLabel(labels)
}

const duplicateKey = 11000

// duplicate reports whether a document that reads see has the id of a failed write.
func duplicate(err error) bool { return mongo.IsDuplicateKeyError(err) && !Unavailable(err) }

func codesOf[E interface{ ErrorCodes() []int }](errs []E) (codes []int) {
	for _, e := range errs {
		codes = append(codes, e.ErrorCodes()...)
	}
	return codes
}

func allRetryable(codes []int) bool {
	return len(codes) > 0 && !slices.ContainsFunc(codes, func(code int) bool { return !unavailable[code] })
}

func hasRetryableLabel(err mongo.LabeledError) bool {
	return slices.ContainsFunc(retryableLabels, err.HasErrorLabel)
}
