package handlers_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/handlers"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/refresher/refreshertest"
	"github.com/latchkey/latchkey/store"
)

// A refresh that may not start for now comes back in time for the last try, if it
// may start by then.
func TestWhatIsPutOffComesBackForTheLastTry(t *testing.T) {
	const pause = 10 * time.Minute
	for name, c := range map[string]struct {
		left, min, max time.Duration // from now until the last try, and when it comes back
	}{
		"there is time":                  {hour, pause + pause/2 - time.Second, pause + pause/2},
		"the last try comes soon":        {pause + time.Minute, pause, pause + time.Minute},
		"with the end of the pause":      {pause, pause, pause},
		"the pause is longer":            {pause - time.Minute, pause, pause + pause/2},
		"the last try has its time past": {-time.Minute, pause, pause + pause/2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			p := refresher.NewPolicy(config.Default())
			w := r.Worker("a", refreshertest.PlanBy(func(c *config.Config) { *c = config.Default() }), func(d *refresher.Options) {
				d.Credentials = config.Backoff{Min: pause, Max: pause}
			})
			refused := r.Connect(w, meshsim.ConnectSpec{})
			g := r.Connect(w, meshsim.ConnectSpec{}, func(g *store.Grant) {
				g.Access = lasting(r.Clock.Now().Add(c.left+p.ClockSkew+p.Lead-2*hour), 2*hour)
			})
			require.Equal(t, r.Clock.Now().Add(c.left), *p.LatestAttempt(g))
			r.RefuseCredentials()
			require.NoError(t, w.HandleDue(t.Context(), due(refused)))

			body, err := json.Marshal(due(g))
			require.NoError(t, err)
			postponed := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postponed"}, []string{"cause"})
			handle := handlers.RefreshDue(w.Refresher, w.Dispatcher, r.Clock.Now, func() float64 { return 0.9999 }, postponed)
			require.NoError(t, handle(t.Context(), message.NewMessage("", body)))
			_, at, found, err := w.Dispatcher.Scheduled(t.Context(), g.ID)
			require.NoError(t, err)
			require.True(t, found)
			require.WithinRange(t, at, r.Clock.Now().Add(c.min), r.Clock.Now().Add(c.max))
		})
	}
}
