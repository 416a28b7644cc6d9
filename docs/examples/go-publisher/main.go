// Command go-publisher publishes a connect, sealed. Standard input is what Mesh
// Link's onIntegrationConnected gave to the page:
//
//	go-publisher USER CONNECTED_AT < payload.json
//
// CONNECTED_AT is when the page got it (RFC 3339), the same if you repeat the command.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/latchkey/latchkey/events/client"
	"github.com/latchkey/latchkey/events/secret"
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

func publish(ctx context.Context, userID, connectedAt string, payload io.Reader) error {
	at, err := time.Parse(time.RFC3339, connectedAt)
	if err != nil {
		return fmt.Errorf("CONNECTED_AT: %w", err)
	}
	link, err := io.ReadAll(payload)
	if err != nil {
		return fmt.Errorf("reading the payload: %w", err)
	}
	nc, err := nats.Connect(os.Getenv("NATS_URL"), nats.CustomInboxPrefix("_INBOX_publisher"))
	if err != nil {
		return fmt.Errorf("connecting to NATS: %w", err)
	}
	defer nc.Close()
	latchkey, err := client.New(nc, client.Prefix(os.Getenv("LATCHKEY_PREFIX")), client.SealConnects())
	if err != nil {
		return err
	}
	if err := latchkey.PublishConnected(ctx, client.Connected{UserID: userID, Payload: secret.New(string(link)), ConnectedAt: at}); err != nil {
		return err
	}
	fmt.Println("stored") // from here on it is Latchkey's responsibility
	return nil
}
