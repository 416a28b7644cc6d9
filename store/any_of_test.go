package store_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// Callers who come together often ask for the same.
func TestAListOfValuesNamesEachOnce(t *testing.T) {
	t.Parallel()
	s, member := stubbed(t)
	_, err := s.Revocations(t.Context(), "u", "b", []string{"a", "a", ""})
	require.NoError(t, err)
	begun, release := make(chan struct{}, 100), make(chan struct{})
	member.answerWith(func(command string) bson.D {
		begun <- struct{}{}
		<-release
		return wellAnswered(command)
	})
	var all sync.WaitGroup
	ask := func() {
		all.Go(func() {
			_, err := s.ByUser(t.Context(), "u")
			require.NoError(t, err)
			_, err = s.Revocations(t.Context(), "u", "b", []string{"a"})
			require.NoError(t, err)
		})
	}
	for range 2 { // as many commands as run at once; the others are gathered
		ask()
		<-begun
	}
	for range 20 {
		ask()
	}
	time.Sleep(10 * time.Millisecond) // so that some are gathered; more or fewer does not matter
	close(release)
	all.Wait()
	for _, command := range member.take() {
		var c struct {
			Filter bson.D `bson:"filter"`
		}
		require.NoError(t, bson.Unmarshal(command.body, &c))
		for _, condition := range c.Filter {
			operators, ok := condition.Value.(bson.D)
			if !ok {
				continue
			}
			values := operators[0].Value.(bson.A)
			seen := map[any]bool{}
			for _, v := range values {
				require.False(t, seen[v], "%v", c.Filter)
				seen[v] = true
			}
		}
	}
}
