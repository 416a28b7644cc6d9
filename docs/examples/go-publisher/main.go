// Command go-publisher publishes a connect, sealed. Standard input is what Mesh
// Link's onIntegrationConnected gave to the page:
//
//	go-publisher USER CONNECTED_AT < payload.json
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/sealing"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: go-publisher USER CONNECTED_AT < payload.json")
		os.Exit(2)
	}
	if err := publish(context.Background(), os.Args[1], os.Args[2], os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// subjects are those of an installation without nats.prefix.
var subjects events.Subjects

func publish(ctx context.Context, userID, connectedAt string, payload io.Reader) error {
	link, err := io.ReadAll(payload)
	if err != nil {
		return fmt.Errorf("reading the payload: %w", err)
	}
	nc, err := nats.Connect(os.Getenv("NATS_URL"), nats.CustomInboxPrefix("_INBOX_publisher"))
	if err != nil {
		return fmt.Errorf("connecting to NATS: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("setting up JetStream: %w", err)
	}

	keys := &workerKeys{nc: nc}
	key, err := keys.current(ctx)
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{"userId": userID, "connectedAt": connectedAt, "payload": json.RawMessage(link)})
	if err != nil {
		return errors.New("the payload is not JSON") // the error itself may quote it
	}
	sealed, err := key.Seal(body)
	if err != nil {
		return err
	}
	ack, err := js.Publish(ctx, subjects.Connected(), sealed)
	if err != nil {
		return fmt.Errorf("publishing: %w", err)
	}
	fmt.Println("stored as", ack.Sequence) // from here on it is Latchkey's responsibility
	return nil
}

// workerKeys fetches the workers' keys, and again after an hour: a new one
// comes about once a month.
type workerKeys struct {
	nc *nats.Conn

	mu      sync.Mutex
	key     sealing.PublicKey
	fetched time.Time
}

// current returns the key to seal to. When it can't be fetched now, the one at
// hand is good for a day.
func (k *workerKeys) current(ctx context.Context) (sealing.PublicKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	age := time.Since(k.fetched)
	if age < time.Hour {
		return k.key, nil
	}
	key, err := k.fetch(ctx)
	if err != nil {
		if age < 24*time.Hour {
			return k.key, nil
		}
		return sealing.PublicKey{}, err
	}
	k.key, k.fetched = key, time.Now()
	return key, nil
}

func (k *workerKeys) fetch(ctx context.Context) (sealing.PublicKey, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	reply, err := k.nc.RequestWithContext(ctx, subjects.TokenKeys(), nil)
	if err != nil {
		return sealing.PublicKey{}, fmt.Errorf("asking for the workers' keys: %w", err)
	}
	if code := reply.Header.Get("Nats-Service-Error"); code != "" {
		return sealing.PublicKey{}, fmt.Errorf("asking for the workers' keys: %s", code)
	}
	return sealing.ParseKeys(reply.Data)
}
