package pause_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events/pause"
)

func TestAPauseEndsWithItsTimeOrItsContext(t *testing.T) {
	for name, c := range map[string]struct {
		limit, pause time.Duration // of the context; 0: it has ended
		took         time.Duration
		err          error
	}{
		"the whole pause":             {time.Hour, time.Minute, time.Minute, nil},
		"the context ends first":      {time.Minute, time.Hour, time.Minute, context.DeadlineExceeded},
		"no pause":                    {time.Hour, 0, 0, nil},
		"less than none":              {time.Hour, -time.Second, 0, nil},
		"the context has ended":       {0, time.Hour, 0, context.DeadlineExceeded},
		"it has ended, and no pause":  {0, 0, 0, context.DeadlineExceeded},
		"it has ended, and less yet":  {0, -time.Second, 0, context.DeadlineExceeded},
		"it ends long after the time": {24 * time.Hour, time.Second, time.Second, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), c.limit)
				defer cancel()
				began := time.Now()
				require.ErrorIs(t, pause.For(ctx, c.pause), c.err)
				require.Equal(t, c.took, time.Since(began))
			})
		})
	}
}
