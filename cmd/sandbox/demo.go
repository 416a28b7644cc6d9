package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
	"github.com/latchkey/latchkey/events/pause"
)

const demoLife = 8 * time.Second

// demoUser is one scene of the demo.
type demoUser struct {
	name, story string
	spec        meshsim.ConnectSpec
	wantCode    string // of a request for tokens at the end; "": tokens that the institution takes
}

func demoUsers() []demoUser {
	account := func(id, name string) []meshsim.Account { return []meshsim.Account{{ID: id, Name: name}} }
	return []demoUser{
		{"alice", "two accounts that share a refresh token", meshsim.ConnectSpec{
			BrokerType: "coinbase", BrokerName: "Coinbase", LogoBytes: meshsim.TypicalLogoBytes,
			Accounts: []meshsim.Account{{ID: "cb-1", Name: "Alice's savings"}, {ID: "cb-2", Name: "Alice's trading"}},
		}, ""},
		{"bob", "delayed authentication: a refresh token only", meshsim.ConnectSpec{BrokerType: "binance", BrokerName: "Binance", Delayed: true, Accounts: account("bn-1", "Bob")}, ""},
		{"carol", "an access token that nothing can renew", meshsim.ConnectSpec{BrokerType: "oldBank", BrokerName: "Old Bank", NoRefreshToken: true, Accounts: account("ob-1", "Carol")}, events.CodeExpired},
		{"dave", "a broker that wants the access token along", meshsim.ConnectSpec{BrokerType: "weBull", BrokerName: "Webull", Accounts: account("wb-1", "Dave")}, ""},
		{"erin", "disconnects after a while", meshsim.ConnectSpec{BrokerType: "kraken", BrokerName: "Kraken", Accounts: account("kr-1", "Erin")}, events.CodeUnknownUser},
		{"frank", "the institution ends the grant", meshsim.ConnectSpec{BrokerType: "gemini", BrokerName: "Gemini", Accounts: account("gm-1", "Frank")}, events.CodeExpired},
		{"grace", "the institution wants her to authenticate again", meshsim.ConnectSpec{BrokerType: "vanguard", BrokerName: "Vanguard", Accounts: account("vg-1", "Grace")}, events.CodeExpired},
	}
}

// demoSettings suit access tokens that live for demoLife.
func demoSettings() []string {
	return []string{
		"LATCHKEY_ADMIN_LISTEN=", "LATCHKEY_LOG_LEVEL=debug", "LATCHKEY_TOKENS_MIN_TTL=1s",
		"LATCHKEY_REFRESH_ACCESS_TOKEN_MIN=2s", "LATCHKEY_REFRESH_BACKOFF_MIN=100ms",
		"LATCHKEY_RECONCILE_INTERVAL=2s", "LATCHKEY_RECONCILE_SLACK=2s",
	}
}

func demoCommand() *cobra.Command {
	var picture string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the life of a few grants in half a minute, then check it against the ledger",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			shown := &recording{to: cmd.OutOrStdout(), now: time.Now}
			if err := demo(cmd.Context(), shown); err != nil || picture == "" {
				return err
			}
			return shown.save(picture)
		},
	}
	cmd.Flags().StringVar(&picture, "picture", "", "also save what it shows as a moving picture (SVG)")
	return cmd
}

// nextSteps are pasted as they are, the later ones while the first runs.
const nextSteps = `
Next, from this folder:
  make sandbox                  # the same until ctrl-C, with a page for your browser

and, while it runs, in another terminal:
  eval "$(bin/sandbox env)" && sandbox connect alice      # a first event of your own
  eval "$(bin/sandbox env)" && latchkey token get alice   # alice's current tokens, masked
`

// demo plays the scenes on a stack of its own and compares at the end what subscribers heard
// with what the simulated institutions saw.
func demo(ctx context.Context, stdout io.Writer) error {
	dir, err := os.MkdirTemp("", "latchkey-demo-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	institution := meshsim.Institution{AccessLifetime: demoLife, RefreshLifetime: time.Hour}
	institutions := map[string]meshsim.Institution{}
	for _, u := range demoUsers() {
		i := institution
		i.NeedsAccessToken = u.spec.BrokerType == "weBull" || u.spec.BrokerType == "vanguard"
		institutions[u.spec.BrokerType] = i
	}
	fmt.Fprintln(stdout, "Starting NATS, MongoDB, a simulated KMS and Mesh, and a worker, all in this process.")
	s, err := stack.Start(stack.Options{Dir: dir, Institutions: institutions})
	if err != nil {
		return err
	}
	defer s.Stop()
	cfg, err := s.Config(demoSettings()...)
	if err != nil {
		return err
	}
	return withWorker(ctx, s, cfg, filepath.Join(dir, "worker.log"), func(ctx context.Context) error {
		nc, err := nats.Connect(cfg.NATS.URL)
		if err != nil {
			return fmt.Errorf("connecting to the sandbox's NATS: %w", err)
		}
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			return fmt.Errorf("setting up JetStream: %w", err)
		}
		latchkey, err := client.New(nc, client.Once())
		if err != nil {
			return err
		}
		show := &demoShow{out: stdout, start: time.Now(), nc: nc, js: js, latchkey: latchkey, stack: s, heard: map[string]map[string]int{}, seen: map[string]bool{}}
		if err := show.play(ctx); err != nil {
			return err
		}
		if err := show.judge(ctx); err != nil {
			return err
		}
		_, err = fmt.Fprint(stdout, nextSteps)
		return err
	})
}

// demoShow prints what happens while it happens, and counts.
type demoShow struct {
	out      io.Writer
	start    time.Time
	nc       *nats.Conn
	js       jetstream.JetStream
	stack    *stack.Stack
	latchkey *client.Client

	mu    sync.Mutex
	heard map[string]map[string]int // events by user and kind
	seen  map[string]bool           // ids of the events that were counted
	users sync.Map                  // grant id -> user
	dead  int
}

func (d *demoShow) say(who, what string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.out, "%6.1fs  %-6s %s\n", time.Since(d.start).Seconds(), who, fmt.Sprintf(what, args...))
}

var subjects = events.Subjects{}

func (d *demoShow) play(ctx context.Context) error {
	for subject, handle := range map[string]nats.MsgHandler{
		"token.*.*":                   d.lifecycle,
		subjects.RefreshScheduleAll(): d.scheduled,
		subjects.DeadLetterAll():      d.deadLetter,
	} {
		if _, err := d.nc.Subscribe(subject, handle); err != nil {
			return fmt.Errorf("subscribing: %w", err)
		}
	}
	if err := d.nc.Flush(); err != nil {
		return fmt.Errorf("subscribing: %w", err)
	}
	fmt.Fprintf(d.out, "Access tokens live %s here. What follows is what publishers and subscribers see.\n\n", demoLife)
	for _, u := range demoUsers() {
		c, err := d.stack.Mesh.Connect(u.spec)
		if err != nil {
			return err
		}
		switch u.name {
		case "frank":
			err = d.stack.Mesh.Script("gm-1", meshsim.Normal(), meshsim.Killed("the user revoked access"))
		case "grace":
			err = d.stack.Mesh.Script("vg-1", meshsim.MFARequired())
		}
		if err != nil {
			return err
		}
		d.say(u.name, "connects %s: %s", u.spec.BrokerName, u.story)
		if err := d.publish(ctx, subjects.Connected(), fmt.Sprintf(`{"userId":%q,"payload":%s}`, u.name, c.Payload.Reveal())); err != nil {
			return err
		}
	}
	d.say("-", "a publisher sends something that is no connected event")
	if err := d.publish(ctx, subjects.Connected(), `{"userId":"mallory","payload":{}}`); err != nil {
		return err
	}
	for _, scene := range []struct {
		after time.Duration
		do    func() error
	}{
		{5 * time.Second, func() error { d.ask(ctx, "alice"); return nil }},
		{5 * time.Second, func() error {
			d.say("erin", "disconnects")
			return d.publish(ctx, subjects.Disconnected(), `{"userId":"erin","everything":true}`)
		}},
		{12 * time.Second, func() error { d.ask(ctx, "alice"); return nil }},
	} {
		if err := pause.For(ctx, scene.after); err != nil {
			return err
		}
		if err := scene.do(); err != nil {
			return err
		}
	}
	return nil
}

func (d *demoShow) publish(ctx context.Context, subject, body string) error {
	if _, err := d.js.Publish(ctx, subject, []byte(body)); err != nil {
		return fmt.Errorf("publishing %s: %w", subject, err)
	}
	return nil
}

func (d *demoShow) lifecycle(m *nats.Msg) {
	e, err := events.DecodeLifecycle(m.Data)
	if err != nil {
		return // a token request and its like
	}
	d.users.Store(e.Data.GrantID, e.Data.UserID)
	d.mu.Lock()
	known := d.seen[e.ID]
	d.seen[e.ID] = true
	if d.heard[e.Data.UserID] == nil {
		d.heard[e.Data.UserID] = map[string]int{}
	}
	if !known {
		d.heard[e.Data.UserID][e.Kind]++
	}
	d.mu.Unlock()
	if known {
		return
	}
	text := fmt.Sprintf("%s  version %d", e.Kind, e.Data.Version)
	if e.Data.ExpiresAt != nil {
		text += fmt.Sprintf(", access token until +%.1fs", e.Data.ExpiresAt.Sub(d.start).Seconds())
	}
	if e.Data.Reason != "" {
		text += ", reason " + string(e.Data.Reason)
	}
	d.say(e.Data.UserID, "%s", text)
}

func (d *demoShow) scheduled(m *nats.Msg) {
	var due events.RefreshDue
	if json.Unmarshal(m.Data, &due) != nil {
		return
	}
	at := strings.TrimPrefix(m.Header.Get("Nats-Schedule"), "@at ")
	if t, err := time.Parse(time.RFC3339, at); err == nil {
		user, ok := d.users.Load(due.GrantID)
		if !ok {
			user = "grant " + due.GrantID[:6]
		}
		d.say("-", "scheduled: version %d of %v is due at +%.1fs", due.Version, user, t.Sub(d.start).Seconds())
	}
}

func (d *demoShow) deadLetter(m *nats.Msg) {
	var letter struct{ Reason string }
	_ = json.Unmarshal(m.Data, &letter) // shown as it is
	d.mu.Lock()
	d.dead++
	d.mu.Unlock()
	d.say("-", "dead letter: %s", letter.Reason)
}

// ask requests a user's tokens, shows them masked, and returns the code of the answer and
// how many of the tokens institutions would take.
func (d *demoShow) ask(ctx context.Context, user string) (code string, valid, given int) {
	reply, err := d.latchkey.Tokens(ctx, events.TokenRequest{UserID: user})
	var refused *client.RefusedError
	switch {
	case errors.As(err, &refused):
		d.say(user, "tokens asked for: refused, %s", refused.Code)
		return refused.Code, 0, 0
	case err != nil:
		d.say(user, "tokens asked for: %v", err)
		return events.CodeInternal, 0, 0
	}
	for _, t := range reply.AccessTokens {
		given++
		if ok, _ := d.stack.Mesh.AccessTokenState(t.AccessToken); ok {
			valid++
		}
		d.say(user, "tokens asked for: %s for %s at %s", t.AccessToken.Masked(), t.AccountID, t.BrokerName)
	}
	return "", valid, given
}
