package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
	"github.com/latchkey/latchkey/events/secret"
)

// A backend's handler of what the page got from Mesh Link.
func ExampleClient_PublishConnected() {
	nc, err := nats.Connect(os.Getenv("NATS_URL"), nats.CustomInboxPrefix("_INBOX_backend"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer nc.Close()
	latchkey, err := client.New(nc)
	if err != nil {
		fmt.Println(err)
		return
	}
	http.HandleFunc("POST /connected", func(w http.ResponseWriter, r *http.Request) {
		payload, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err == nil {
			err = latchkey.PublishConnected(r.Context(), client.Connected{
				UserID: "alice", Payload: secret.New(string(payload)), ConnectedAt: time.Now(),
			})
		}
		if err != nil {
			http.Error(w, "not stored; send it again", http.StatusServiceUnavailable)
		}
	})
}

// What went wrong decides what to do.
func ExampleClient_Tokens() {
	var latchkey *client.Client // from New
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	reply, err := latchkey.Tokens(ctx, events.TokenRequest{UserID: "alice", BrokerType: "coinbase"})
	var refused *client.RefusedError
	switch {
	case errors.As(err, &refused) && refused.Reconnect():
		fmt.Println("ask the user to connect again")
	case err != nil:
		fmt.Println("try later:", err)
	default:
		for _, t := range reply.AccessTokens {
			fmt.Println(t.BrokerName, t.AccountName, t.AccessToken) // the token prints as [redacted]
		}
	}
}

// Two processes with one Durable share the events.
func ExampleClient_Subscribe() {
	var latchkey *client.Client // from New
	err := latchkey.Subscribe(context.Background(), client.Subscription{
		Durable: "notifications",
		Kinds:   []string{events.TokenExpired},
	}, func(_ context.Context, e events.LifecycleEvent) error {
		fmt.Println("ask", e.Data.UserID, "to connect", e.Data.BrokerName, "again:", e.Data.Reason)
		return nil
	})
	fmt.Println(err)
}
