package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
)

func TestMissingIndexesAreNamed(t *testing.T) {
	t.Parallel()
	s := connect(t, options(t, enginestest.MongoDB(t)))
	missing, err := s.MissingIndexes(t.Context())
	require.NoError(t, err)
	require.Contains(t, missing, "grants(due.stream, due.at, _id)")
	require.NoError(t, s.Ensure(t.Context()))
	missing, err = s.MissingIndexes(t.Context())
	require.NoError(t, err)
	require.Empty(t, missing)
}

// stubbed returns a store over a stub.
func stubbed(t *testing.T) (*store.Store, *stub) {
	t.Helper()
	member := replicaSet(t, 1)[0]
	return connect(t, store.Options{URI: secret.New("mongodb://" + member.addr), Database: "d", Timeout: time.Minute}), member
}

func TestAnIndexBuildHasADeadlineOfItsOwn(t *testing.T) {
	t.Parallel()
	s, member := stubbed(t)
	require.NoError(t, s.Ensure(t.Context()))
	created := 0
	for _, command := range member.take() {
		if command.name != "createIndexes" {
			continue
		}
		created++
		limit, ok := field(t, command.body, "maxTimeMS").(int64)
		require.True(t, !ok || time.Duration(limit)*time.Millisecond > 12*time.Hour, "%v", command.body)
	}
	require.Positive(t, created)
}

func TestWorkGoesOnWhileIndexesAreBuilt(t *testing.T) {
	t.Parallel()
	s, member := stubbed(t)
	building := make(chan struct{})
	release := make(chan struct{})
	member.answerWith(func(command string) bson.D {
		if command == "createIndexes" {
			building <- struct{}{}
			<-release
		}
		return wellAnswered(command)
	})
	done := s.EnsureInBackground(func(err error) { t.Errorf("failed: %v", err) })
	<-building
	_, err := s.ByUser(t.Context(), "u")
	require.NoError(t, err)
	select {
	case <-done:
		t.Error("done while an index is being built")
	default:
	}
	go func() {
		for range building { // the others
		}
	}()
	close(release)
	<-done
}

func TestAStoreThatIsClosedWaitsForNoIndex(t *testing.T) {
	t.Parallel()
	s, member := stubbed(t)
	building, release := make(chan struct{}, 100), make(chan struct{})
	defer close(release)
	member.answerWith(func(command string) bson.D {
		if command == "createIndexes" {
			building <- struct{}{}
			<-release
		}
		return wellAnswered(command)
	})
	s.EnsureInBackground(func(err error) { t.Errorf("failed: %v", err) })
	<-building
	require.NoError(t, s.Close(t.Context()))
}

func TestIndexesThatFailAreTriedAgain(t *testing.T) {
	t.Parallel()
	s, member := stubbed(t)
	member.answerWith(func(command string) bson.D {
		if command == "createIndexes" {
			return shapes["command"](13)
		}
		return wellAnswered(command)
	})
	failures := make(chan error)
	done := s.EnsureEvery(time.Millisecond, func(err error) { failures <- err })
	require.ErrorContains(t, <-failures, "creating the indexes of collection grants")
	require.ErrorContains(t, <-failures, "creating the indexes of collection audit_heads", "one that fails keeps nobody from the next")
	member.answerWith(wellAnswered)
	for {
		select {
		case <-failures: //nolint:errcheck // of a try that had begun
			continue
		case <-done:
		}
		return
	}
}
