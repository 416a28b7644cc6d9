package linkdemo_test

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/cmd/sandbox/linkdemo"
	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
)

// patience bounds every wait. It is no expectation of speed: a wait ends as
// soon as what it waits for is there.
const patience = 60 * time.Second

// startDemo starts engines, a worker and the page.
func startDemo(t *testing.T, scriptDir string) (*stack.Stack, *nats.Conn, *linkdemo.Demo) {
	t.Helper()
	s, err := stack.Start(stack.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(s.Stop)
	cfg, err := s.Config("LATCHKEY_ADMIN_LISTEN=", "LATCHKEY_RECONCILE_INTERVAL=1s", "LATCHKEY_RECONCILE_SLACK=1s", "LATCHKEY_TOKENS_MIN_TTL=1s")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- worker.Run(ctx, cfg, worker.Options{Log: zaptest.NewLogger(t), Metrics: prometheus.NewRegistry(), Ready: func() { close(ready) }})
	}()
	select {
	case <-ready:
	case err := <-done:
		t.Fatalf("starting the worker: %v", err)
	}
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	require.NoError(t, s.Ready(ctx))
	nc, err := nats.Connect(cfg.NATS.URL)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	demo, err := linkdemo.Start(linkdemo.Options{
		NATSURL: cfg.NATS.URL, Mesh: s.Mesh, ScriptDir: scriptDir,
		Institutions: map[string]meshsim.Institution{"oldBank": {AccessLifetime: 5 * time.Second}},
	})
	require.NoError(t, err)
	t.Cleanup(demo.Stop)
	return s, nc, demo
}

// TestInABrowser walks a user through the page: the first visit, later ones,
// and what goes wrong in between.
func TestInABrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("needs npm and Chromium: not in short mode")
	}
	b := openBrowser(t)
	s, nc, demo := startDemo(t, buildScript(t))
	var seen tokens

	b.do(chromedp.Navigate(demo.URL))
	b.until(`!document.getElementById("none").hidden && document.getElementById("transfer").disabled`)
	user := inPage[string](b, `document.querySelector("footer code").textContent`)

	// The first visit. The backend is away at first; the page does not lose what
	// it was given.
	b.block("/api/connected", true)
	b.click("#connect")
	b.clickLink("#coinbase")
	b.says("Not stored yet")
	toLink := inLink[[]message](b, `heard`)
	require.Len(t, toLink, 1, "a first visit brings no tokens")
	require.Equal(t, "meshSDKSpecs", toLink[0].Type)
	require.JSONEq(t, `{"platform":"web","version":"3.13.0","origin":"`+demo.URL+`"}`, string(toLink[0].Payload))
	require.Equal(t, demo.URL, toLink[0].Origin)
	toPage := inPage[[]message](b, `heard`)
	seen.add(toPage)
	require.Len(t, seen.access, 2)
	require.Equal(t, "brokerageAccountAccessToken", toPage[len(toPage)-1].Type)
	seen.mustNotBeIn(t, b.everythingKept())
	b.block("/api/connected", false)
	b.shows("token.stored", 1)
	b.endLink("#done")
	b.until(`document.querySelectorAll("#accounts li").length === 2`)

	// Another account, with delayed authentication.
	b.click("#connect")
	b.clickLink("#binance")
	b.until(`document.querySelectorAll("#accounts li").length === 3`)
	toPage = inPage[[]message](b, `heard`)
	require.Equal(t, "delayedAuthentication", toPage[len(toPage)-1].Type)
	seen.add(toPage)
	b.endLink("#done")

	// A later visit, after a refresh: Link shows the transfer step at once.
	renew(t, nc, user, "coinbase")
	b.shows("token.refreshed", 1)
	b.do(chromedp.Reload())
	b.until(`document.querySelectorAll("#accounts li").length === 3`)
	b.click("#transfer")
	b.clickLink("#send")
	b.endLink("#finish")
	b.says("Sent 10 USDC.")
	toPage = inPage[[]message](b, `heard`)
	require.Equal(t, []string{"loaded", "transferFinished", "done"}, types(toPage))

	// The same once more, to see what Link got.
	b.click("#transfer")
	b.do(chromedp.WaitReady(linkFrame))
	b.clickLink("#from label:last-child")
	require.Equal(t, 3, inLink[int](b, `document.querySelectorAll("#from label").length`))
	toLink = inLink[[]message](b, `heard`)
	require.Equal(t, []string{"meshSDKSpecs", "frontAccessTokens"}, types(toLink))
	var given []map[string]string
	require.NoError(t, json.Unmarshal(toLink[1].Payload, &given))
	require.Len(t, given, 3)
	for _, g := range given {
		require.ElementsMatch(t, []string{"accountId", "accountName", "accessToken", "brokerType", "brokerName"}, slices.Collect(maps.Keys(g)))
		require.NotContains(t, seen.access, g["accessToken"], "a token from before the refresh")
		valid, why := s.Mesh.AccessTokenState(secret.New(g["accessToken"]))
		require.True(t, valid, why)
	}
	seen.add(toLink)
	seen.mustNotBeIn(t, b.everythingKept())
	seen.mustNotBeIn(t, inLink[string](b, `document.documentElement.outerHTML + JSON.stringify({...localStorage, ...sessionStorage}) + location.href`))
	b.endLink("#close")

	// Somebody else in the same browser gets nothing of it.
	b.leave()
	require.NotEqual(t, user, inPage[string](b, `document.querySelector("footer code").textContent`))
	b.until(`!document.getElementById("none").hidden`)
	require.Equal(t, 404, b.status("/api/tokens"))

	// A connection that ends: the user is asked to connect again, and does.
	b.click("#connect")
	b.clickLink("#oldBank")
	b.shows("token.stored", 1)
	b.endLink("#done")
	b.shows("token.expired", 1)
	b.until(`document.getElementById("connect").textContent === "Connect again" && document.getElementById("transfer").disabled`)
	require.Equal(t, 410, b.status("/api/tokens"))
	b.do(chromedp.Evaluate[chromedp.Void](`document.getElementById("transfer").disabled = false`)) // a page that is behind
	b.click("#transfer")
	b.says("Your connection has ended. Please connect again.")
	b.click("#connect")
	b.clickLink("#oldBank")
	b.shows("token.stored", 2)
	toPage = inPage[[]message](b, `heard`)
	seen.add(toPage)
	seen.mustNotBeIn(t, b.everythingKept())

	// The console shows what was refused on purpose, and no breach of a content
	// security policy or anything else.
	complaints := b.complaints()
	require.Contains(t, strings.Join(complaints, "\n"), "410")
	for _, c := range complaints {
		require.Contains(t, c, "Failed to load resource")
	}

	// What the browser leaves on the disk.
	b.quit()
	require.Positive(t, seen.mustNotBeInFiles(t, b.profile), "no profile was written")
}

// renew has the tokens of a user at a broker refreshed, as if they had been refused.
func renew(t *testing.T, nc *nats.Conn, user, broker string) {
	t.Helper()
	ask := func(in events.TokenRequest) events.TokenReply {
		body, err := json.Marshal(in)
		require.NoError(t, err)
		msg, err := nc.Request(events.Subjects{}.TokenGet(user), body, patience)
		require.NoError(t, err)
		require.Empty(t, msg.Header.Get("Nats-Service-Error"))
		reply, err := events.DecodeTokenReply(msg.Data)
		require.NoError(t, err)
		return reply
	}
	in := events.TokenRequest{UserID: user, BrokerType: broker}
	for _, e := range ask(in).Expiries {
		in.Refused = append(in.Refused, e.Refused())
	}
	for _, result := range ask(in).Refused {
		require.Equal(t, events.RefusedRefreshed, result.Outcome)
	}
}

func types(list []message) []string {
	var out []string
	for _, m := range list {
		out = append(out, m.Type)
	}
	return out
}
