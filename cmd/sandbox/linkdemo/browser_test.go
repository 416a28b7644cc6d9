package linkdemo_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// unreachable is how npm says that the registry can't be had.
var unreachable = regexp.MustCompile(`\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ENOTCACHED)\b`)

// buildScript builds the page's script with npm and returns its folder.
func buildScript(t *testing.T) string {
	t.Helper()
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("npm is not installed: the page's script can't be built")
	}
	dir := filepath.Join(t.TempDir(), "web")
	for _, part := range []string{"package.json", "package-lock.json", ".npmrc"} {
		content, err := os.ReadFile(filepath.Join("web", part))
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(dir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, part), content, 0o600))
	}
	require.NoError(t, os.CopyFS(filepath.Join(dir, "page"), os.DirFS("web/page")))
	for _, args := range [][]string{{"ci", "--prefer-offline"}, {"run", "build"}} {
		cmd := exec.CommandContext(t.Context(), npm, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil && unreachable.Match(out) {
			t.Skipf("the npm registry can't be reached: the page's script can't be built\n%s", out)
		}
		require.NoError(t, err, "npm %s:\n%s", strings.Join(args, " "), out)
	}
	return filepath.Join(dir, "build")
}

// browser is a headless Chromium with one tab.
type browser struct {
	t       *testing.T
	ctx     context.Context
	profile string
	quit    func()

	mu       sync.Mutex
	contexts map[cdp.FrameID]runtime.ExecutionContextID
	problems []string
}

// recorder notes, in every frame, the messages that reach it.
const recorder = `window.heard = [];
addEventListener("message", ({ origin, data }) => { if (data?.type) heard.push({ origin, type: data.type, payload: data.payload }) }, true);`

func openBrowser(t *testing.T) *browser {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed: make deps installs it on Debian, as root")
	}
	b := &browser{t: t, profile: t.TempDir(), contexts: map[cdp.FrameID]runtime.ExecutionContextID{}}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.UserDataDir(b.profile),
		// One process for the page and Link, so that both can be looked into at once.
		chromedp.Flag("disable-features", "SitePerProcess,IsolateOrigins,Translate"), chromedp.Flag("disable-site-isolation-trials", true))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium refuses to sandbox root
	}
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
	b.ctx, _ = chromedp.NewContext(allocator)
	b.quit = sync.OnceFunc(func() {
		_ = chromedp.Cancel(b.ctx) // lets the browser end as if closed by its user
		end()
	})
	t.Cleanup(b.quit)
	require.NoError(t, chromedp.Listen(b.ctx, b.observe))
	protocol(b, network.Enable, network.EnableParams{})
	protocol(b, log.Enable, cdp.Empty{})
	protocol(b, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: recorder})
	return b
}

// protocol sends one command of the DevTools protocol.
func protocol[P, R any](b *browser, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	out, err := chromedp.Call(b.ctx, command, params)
	require.NoError(b.t, err)
	return out
}

func (b *browser) observe(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExecutionContextCreated:
		var about struct {
			FrameID   cdp.FrameID `json:"frameId"`
			IsDefault bool        `json:"isDefault"`
		}
		if json.Unmarshal(e.Context.AuxData, &about) == nil && about.IsDefault {
			b.contexts[about.FrameID] = e.Context.ID
		}
	case *runtime.EventExceptionThrown:
		b.problems = append(b.problems, e.ExceptionDetails.Text)
	case *log.EventEntryAdded: // a breach of a content security policy, and the like
		b.problems = append(b.problems, e.Entry.Text)
	case *runtime.EventConsoleAPICalled:
		for _, a := range e.Args {
			b.problems = append(b.problems, string(a.Value)+a.Description)
		}
	}
}

// complaints returns what the browser's console has shown so far.
func (b *browser) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.problems)
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.body.innerText`))
		b.t.Fatalf("%v\nthe page:\n%s\nthe console: %q", err, text, b.complaints())
	}
}

// linkFrame is Link's iframe as the SDK makes it.
const linkFrame = chromedp.CSS("#mesh-link-popup__iframe")

// click clicks in the page.
func (b *browser) click(selector chromedp.CSS) {
	b.t.Helper()
	b.do(chromedp.WaitEnabled(selector), chromedp.Click(selector))
}

// link returns Link's iframe.
func (b *browser) link() *chromedp.Node {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	frames, err := chromedp.Run(ctx, chromedp.Nodes(linkFrame))
	require.NoError(b.t, err)
	return frames[0]
}

// clickLink clicks in Link's iframe, once what is to be clicked is there.
func (b *browser) clickLink(selector chromedp.CSS) {
	b.t.Helper()
	for end := time.Now().Add(patience); ; {
		// The iframe's document is another one once Link has loaded: look anew.
		ctx, cancel := context.WithTimeout(b.ctx, time.Second)
		within := chromedp.FromNode(b.link())
		err := chromedp.Do(ctx, chromedp.WaitVisible(selector, within))
		cancel()
		if err == nil {
			b.do(chromedp.Click(selector, within))
			return
		}
		require.True(b.t, time.Now().Before(end), "Link does not show %s: %v", selector, err)
	}
}

// endLink clicks what ends Link, and waits until the SDK has taken it away.
func (b *browser) endLink(selector chromedp.CSS) {
	b.t.Helper()
	b.clickLink(selector)
	b.do(chromedp.WaitNotPresent(linkFrame))
}

// until waits until an expression holds in the page.
func (b *browser) until(expression string) {
	b.t.Helper()
	b.do(chromedp.Poll[chromedp.Void](expression, chromedp.WithPollingTimeout(0), chromedp.WithPollingMutation()))
}

// says waits until the page's status holds some text.
func (b *browser) says(text string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`document.getElementById("status").textContent.includes(%q)`, text))
}

// shows waits until the page has shown an event so many times.
func (b *browser) shows(event string, times int) {
	b.t.Helper()
	b.until(fmt.Sprintf(`document.getElementById("events").textContent.split(%q).length > %d`, event, times))
}

// message is one that a window got by postMessage.
type message struct {
	Origin  string          `json:"origin"`
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload"`
}

// inPage evaluates an expression in the page.
func inPage[T any](b *browser, expression string, options ...chromedp.EvaluateOption) T {
	b.t.Helper()
	out, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, options...))
	require.NoError(b.t, err)
	return out
}

// inLink evaluates an expression in Link's iframe.
func inLink[T any](b *browser, expression string) T {
	b.t.Helper()
	frame := b.link()
	b.mu.Lock()
	id := b.contexts[frame.FrameID]
	b.mu.Unlock()
	return inPage[T](b, expression, func(p *runtime.EvaluateParams) { p.ContextID = id })
}

// kept is everything that a script of a frame can find where something would
// outlive it or be shown.
const kept = `(async () => JSON.stringify({
	dom: document.documentElement.outerHTML, fields: [...document.querySelectorAll("input")].map((i) => i.value),
	local: { ...localStorage }, session: { ...sessionStorage }, cookies: document.cookie, address: location.href,
	state: history.state, name: window.name, databases: await indexedDB.databases(), caches: await globalThis.caches?.keys(),
	workers: (await navigator.serviceWorker?.getRegistrations())?.length,
}))()`

// everythingKept returns what the page and the browser's cookie store hold.
func (b *browser) everythingKept() string {
	b.t.Helper()
	found := inPage[string](b, kept, chromedp.EvalAwaitPromise)
	require.Contains(b.t, found, `"databases":[],"caches":[],"workers":0`)
	for _, c := range protocol(b, storage.GetCookies, storage.GetCookiesParams{}).Cookies {
		require.True(b.t, c.HTTPOnly, "the cookie %s can be read by scripts", c.Name)
		found += "\n" + c.Name + "=" + c.Value
	}
	return found
}

// leave has the page forget who its user is, and waits until it has loaded anew.
func (b *browser) leave() {
	b.t.Helper()
	_, err := chromedp.Run(b.ctx, chromedp.WaitEvent(page.LoadEventFired, nil, chromedp.Click(chromedp.CSS("#leave"))))
	require.NoError(b.t, err)
}

// status asks the backend from within the page, with the user's session.
func (b *browser) status(path string) int {
	b.t.Helper()
	return inPage[int](b, fmt.Sprintf(`fetch(%q, {method: "POST"}).then((r) => r.status)`, path), chromedp.EvalAwaitPromise)
}

// block has requests for a path fail, or no longer.
func (b *browser) block(path string, block bool) {
	b.t.Helper()
	protocol(b, network.SetBlockedURLs, network.SetBlockedURLsParams{
		URLPatterns: []*network.BlockPattern{{URLPattern: "*://*:*" + path, Block: block}},
	})
}
