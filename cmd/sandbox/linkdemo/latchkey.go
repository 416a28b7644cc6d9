package linkdemo

import (
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
)

// latchkey is all that a backend needs of Latchkey.
type latchkey struct {
	*client.Client
	nc       *nats.Conn
	subjects events.Subjects
}

func dial(url string, subjects events.Subjects) (latchkey, error) {
	nc, err := nats.Connect(url, nats.Name("linkdemo"), nats.CustomInboxPrefix("_INBOX_linkdemo"), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort())
	if err != nil {
		return latchkey{}, fmt.Errorf("connecting to NATS: %w", err)
	}
	c, err := client.New(nc, client.Prefix(subjects.Prefix), client.Once())
	if err != nil {
		nc.Close()
		return latchkey{}, err
	}
	return latchkey{c, nc, subjects}, nil
}

// follow delivers the lifecycle events of one user until stop is called. None is missed
// after it returns.
func (l latchkey) follow(userID string, deliver func(events.LifecycleEvent)) (stop func(), err error) {
	var subs []*nats.Subscription
	stop = func() {
		for _, s := range subs {
			_ = s.Unsubscribe()
		}
	}
	for _, kind := range events.LifecycleKinds {
		s, err := l.nc.Subscribe(l.subjects.Lifecycle(kind, userID), func(m *nats.Msg) {
			if e, err := events.DecodeLifecycle(m.Data); err == nil {
				deliver(e)
			}
		})
		if err != nil {
			stop()
			return nil, fmt.Errorf("subscribing to a user's events: %w", err)
		}
		subs = append(subs, s)
	}
	if err := l.nc.Flush(); err != nil {
		stop()
		return nil, fmt.Errorf("subscribing to a user's events: %w", err)
	}
	return stop, nil
}
