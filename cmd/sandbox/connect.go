package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
	"github.com/latchkey/latchkey/events/secret"
)

// connectWait bounds the wait for a worker to handle a connect.
const connectWait = time.Minute

func connectCommand() *cobra.Command {
	var c sampleConnect
	cmd := &cobra.Command{
		Use:   "connect USER",
		Short: "Connect two accounts of a user in the running sandbox",
		Long: `Has the simulated Mesh issue tokens, as Link does when a user connects, publishes them
as integration.connected, as a company's backend does, and waits until a worker has
stored them. The shell must use the sandbox:

  eval "$(sandbox env)"`,
		Example: `  sandbox connect alice
  sandbox connect bob --broker kraken --lifetime 2m`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.user = args[0]
			ctx, cancel := context.WithTimeout(cmd.Context(), connectWait)
			defer cancel()
			return c.run(ctx, os.Environ(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&c.broker, "broker", "coinbase", "broker type")
	cmd.Flags().DurationVar(&c.lifetime, "lifetime", 3*time.Minute, "lifetime of the access tokens")
	return cmd
}

// sampleConnect is a connect with tokens of the simulated Mesh, which it will renew.
type sampleConnect struct {
	user, broker string
	lifetime     time.Duration
}

func (c sampleConnect) run(ctx context.Context, environ []string, stdout io.Writer) error {
	if err := events.CheckUserID(c.user); err != nil {
		return err
	}
	if c.lifetime < time.Second {
		return errors.New("--lifetime: must be at least 1s")
	}
	cfg, err := config.Load("", environ)
	if err != nil {
		return fmt.Errorf(`this shell does not use a sandbox; run: eval "$(sandbox env)": %w`, err)
	}
	payload, err := c.payload(ctx, cfg.Mesh)
	if err != nil {
		return err
	}
	nc, err := nats.Connect(cfg.NATS.URL)
	if err != nil {
		return fmt.Errorf("connecting to the sandbox's NATS: %w", err)
	}
	defer nc.Close()
	heard := make(chan *nats.Msg, 2)
	subjects := cfg.NATS.Subjects()
	for _, subject := range []string{subjects.Lifecycle(events.TokenStored, c.user), subjects.Rejected(c.user)} {
		if _, err := nc.ChanSubscribe(subject, heard); err != nil {
			return fmt.Errorf("subscribing: %w", err)
		}
	}
	latchkey, err := client.New(nc, client.Prefix(cfg.NATS.Prefix))
	if err != nil {
		return err
	}
	if err := latchkey.PublishConnected(ctx, client.Connected{UserID: c.user, Payload: payload, ConnectedAt: time.Now()}); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "Published integration.connected: two accounts of %s at %s.\n", c.user, c.broker)
	select {
	case msg := <-heard:
		return c.tell(msg, stdout)
	case <-ctx.Done():
		return fmt.Errorf("waiting for a worker to handle it: %w", ctx.Err())
	}
}

// payload connects the accounts at the simulated Mesh and returns what Link would hand over.
func (c sampleConnect) payload(ctx context.Context, mesh config.Mesh) (secret.Text, error) {
	type account struct {
		ID   string `json:"accountId"`
		Name string `json:"accountName"`
	}
	body, _ := json.Marshal(map[string]any{ // texts and numbers only
		"brokerType": c.broker, "expiresInSeconds": c.lifetime.Seconds(), "refreshTokenExpiresInSeconds": (24 * time.Hour).Seconds(),
		"accounts": []account{{c.user + "-" + c.broker + "-1", "Savings"}, {c.user + "-" + c.broker + "-2", "Trading"}},
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, mesh.URL+"/sim/connect", bytes.NewReader(body))
	if err != nil {
		return secret.Text{}, fmt.Errorf("asking the simulated Mesh for tokens: %w", err)
	}
	req.Header.Set("X-Client-Id", mesh.ClientID)
	req.Header.Set("X-Client-Secret", mesh.ClientSecret.Reveal())
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return secret.Text{}, fmt.Errorf("asking the simulated Mesh for tokens; does the sandbox run?: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	var answer struct{ Payload json.RawMessage }
	if res.StatusCode == http.StatusOK {
		err = json.NewDecoder(res.Body).Decode(&answer)
	}
	if err != nil || len(answer.Payload) == 0 {
		return secret.Text{}, fmt.Errorf("the simulated Mesh issues no tokens: HTTP %d; is %s that of a sandbox?", res.StatusCode, mesh.URL)
	}
	return secret.New(string(answer.Payload)), nil
}

// tell says what a worker made of the connect.
func (c sampleConnect) tell(msg *nats.Msg, stdout io.Writer) error {
	if rejected, err := events.DecodeRejected(msg.Data); err == nil {
		return fmt.Errorf("the worker rejected it: %s", rejected.Data.Reason)
	}
	e, err := events.DecodeLifecycle(msg.Data)
	if err != nil {
		return err
	}
	until := "an unknown time"
	if e.Data.ExpiresAt != nil {
		until = e.Data.ExpiresAt.Local().Format(time.TimeOnly)
	}
	_, err = fmt.Fprintf(stdout, "%s: grant %s, access token until %s. Latchkey refreshes it before that.\n", e.Kind, e.Data.GrantID, until)
	return err
}
