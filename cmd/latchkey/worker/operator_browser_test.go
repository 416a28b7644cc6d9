package worker_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/cmd/sandbox/meshsim"
	"github.com/latchkey/latchkey/events"
)

// picturesVariable names a folder to put the pictures of the documentation into.
const picturesVariable = "LATCHKEY_TEST_PICTURES"

// browser is a Chromium with one page open.
type browser struct {
	*harness
	ctx context.Context

	installed sync.Once
	modules   string

	mu sync.Mutex
	// complaints are errors that the page or the browser about it reported.
	complaints []string
}

// browse starts a Chromium; without one the test is skipped.
func (h *harness) browse() *browser {
	h.t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		h.t.Skip("no Chromium is installed (Debian's package: chromium)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.WindowSize(1280, 900), chromedp.WSURLReadTimeout(patience), chromedp.UserDataDir(h.t.TempDir()))
	ctx, cancel := chromedp.NewExecAllocator(h.ctx, options...)
	h.t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	b := &browser{harness: h, ctx: ctx}
	messages := chromedp.Console(ctx)
	var heard sync.WaitGroup
	heard.Go(func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			if m.Type == chromedp.ConsoleException || m.Type == "error" || m.Type == "warning" {
				b.mu.Lock()
				b.complaints = append(b.complaints, m.Text+" "+m.URL)
				b.mu.Unlock()
			}
		}
	})
	h.t.Cleanup(heard.Wait)
	h.t.Cleanup(cancel)
	return b
}

// do performs steps in the browser.
func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		require.NoError(b.t, err, b.text("body"))
	}
}

// inPage returns the value of an expression in the page.
func inPage[T any](b *browser, expression string, options ...chromedp.EvaluateOption) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, options...))
	require.NoError(b.t, err, expression[:min(len(expression), 200)])
	return value
}

func (b *browser) press(keys ...string) {
	b.t.Helper()
	for _, key := range keys {
		b.do(chromedp.KeyEvent(key))
	}
}

func (b *browser) click(selector chromedp.CSS) {
	b.t.Helper()
	b.do(chromedp.Click(selector))
}

// text returns what an element shows.
func (b *browser) text(selector string) string {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	text, _ := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf(`document.querySelector(%q)?.innerText ?? ""`, selector)))
	return text
}

// shows waits until an element shows a text.
func (b *browser) shows(selector, text string) {
	b.t.Helper()
	if !assert.Eventually(b.t, func() bool { return strings.Contains(b.text(selector), text) }, patience, 20*time.Millisecond) {
		b.t.Fatalf("%s does not show %q; the page:\n%s", selector, text, b.text("body"))
	}
}

// focus returns what has the focus.
func (b *browser) focus() string {
	b.t.Helper()
	return inPage[string](b, `(e => e.id || e.innerText || e.getAttribute("aria-label") || e.tagName)(document.activeElement)`)
}

// tab presses the tab key until what has the focus is as wanted.
func (b *browser) tab(wanted string) {
	b.t.Helper()
	for range 60 {
		if b.focus() == wanted {
			return
		}
		b.press(kb.Tab)
	}
	b.t.Fatalf("the tab key never came to %s", wanted)
}

// maxPicture bounds a picture of the documentation, in bytes.
const maxPicture = 150 << 10

// picture writes one as it is shown on a screen of a width.
func (b *browser) picture(dir, name string, width int64) {
	b.t.Helper()
	b.look(width, "light")
	shot, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	require.NoError(b.t, err)
	drawn, err := png.Decode(bytes.NewReader(shot))
	require.NoError(b.t, err)
	var small bytes.Buffer
	require.NoError(b.t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&small, fewColors(drawn)))
	require.Less(b.t, small.Len(), maxPicture, name)
	require.NoError(b.t, os.WriteFile(filepath.Join(dir, "operator-"+name+".png"), small.Bytes(), 0o644)) //nolint:gosec // it is published
}

// fewColors returns a picture in the 256 colors that it has most of, each other as the nearest of these.
func fewColors(drawn image.Image) image.Image {
	counts := map[color.Color]int{}
	box := drawn.Bounds()
	for y := box.Min.Y; y < box.Max.Y; y++ {
		for x := box.Min.X; x < box.Max.X; x++ {
			counts[drawn.At(x, y)]++
		}
	}
	most := slices.SortedFunc(maps.Keys(counts), func(a, b color.Color) int { return cmp.Compare(counts[b], counts[a]) })
	out := image.NewPaletted(box, most[:min(256, len(most))])
	draw.Draw(out, box, drawn, box.Min, draw.Src)
	return out
}

// drawPictures draws the pictures of the documentation, with users as there are.
func drawPictures(t *testing.T, dir string) {
	h := start(t, nil)
	seldom := []string{"LATCHKEY_REFRESH_BACKOFF_MIN=1h", "LATCHKEY_REFRESH_BACKOFF_MAX=2h"} // what fails stays so
	h.worker(append(seldom, "LATCHKEY_WORKER_ID=worker-1", "LATCHKEY_ADMIN_LISTEN=127.0.0.1:0")...)
	h.worker(append(seldom, "LATCHKEY_WORKER_ID=worker-2")...)
	brokers := []string{"coinbase", "kraken", "robinhood", "binanceInternational"}
	for i := range 40 {
		user := fmt.Sprintf("user-%02d", i)
		h.connectAged(user, time.Duration(i)*time.Minute, spec(brokers[i%len(brokers)]), user)
		h.event(events.TokenStored, user)
	}
	for i := range 3 {
		user := fmt.Sprintf("user-%d", 50+i)
		h.connectAged(user, due, spec("vanguard"), user, meshsim.HTTPStatus(http.StatusServiceUnavailable))
		h.event(events.TokenStored, user)
	}
	h.connectAged("alice", due, spec("gemini"), "alice", meshsim.MFARequired())
	h.event(events.TokenExpiring, "alice")
	h.publish(h.subjects.Connected(), `{"userId":"bob","payload":{}}`)
	h.publish(h.subjects.Disconnected(), `{"userId":"carol"}`)
	h.deadLetters(2)
	r := h.reader()
	status, body := r.post("/api/verdicts", `{"broker":"gemini","decision":"hold"}`)
	require.Equal(t, http.StatusOK, status, body)
	h.eventually(func() bool {
		f := r.overview().Failing.Value.Brokers
		return len(f) > 0 && f[0].Grants == 3
	}, "nothing fails")
	var found struct{ Grants []grantShown }
	r.read("/api/grants?order=failed&broker=vanguard", &found)

	b := h.browse()
	b.look(1280, "light")
	b.open("/", "#stock", "vanguard")
	b.picture(dir, "status", 1280)
	b.open("/grants?order=failed", "#grants-list", "HTTP 503")
	b.picture(dir, "grants", 1280)
	b.open("/grants/"+found.Grants[0].ID, "#history", events.TokenStored)
	b.picture(dir, "grant", 360)
	b.look(1280, "light")
	b.open("/brokers", "#failing", "transient")
	b.picture(dir, "brokers", 1280)
	b.open("/dead-letters", "#letters-list", "Drop")
	b.picture(dir, "dead-letters", 1280)
	b.open("/workers", "#workers", "worker-2")
	b.picture(dir, "workers", 1280)
}

// look emulates a screen.
func (b *browser) look(width int64, scheme string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: 900, DeviceScaleFactor: 1, Mobile: width < 600,
	})
	require.NoError(b.t, err)
	_, err = chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	require.NoError(b.t, err)
}

// open goes to a view, and waits for what it shows.
func (b *browser) open(path, selector, text string) {
	b.t.Helper()
	b.do(chromedp.Navigate("http://" + b.adminAddress() + path))
	b.eventually(func() bool { return !inPage[bool](b, `document.querySelector("main").classList.contains("waiting")`) }, "the page does not appear")
	b.shows(selector, text)
}

// fits holds the view against screens of several sizes: nothing is cut off or wider than
// these, and nobody is kept out.
func (b *browser) fits(name string) {
	b.t.Helper()
	for _, width := range []int64{360, 768, 1280} {
		b.look(width, "light")
		assert.Empty(b.t, inPage[[]string](b, tooWide), "%s at %d", name, width)
		if width != 768 {
			b.axe()
		}
	}
	b.look(1280, "dark")
	b.axe()
	b.look(1280, "light")
}

// tooWide names elements that are wider than the screen, or contain something that they cut off.
const tooWide = `[document.documentElement, ...document.body.querySelectorAll("*")].filter(e => {
	if (e.closest(".hidden, .skip, dialog, thead, datalist, svg, option") || !e.checkVisibility()) return false;
	const box = e.getBoundingClientRect();
	return box.left < -1 || box.right > innerWidth + 1 || (e.scrollWidth > e.clientWidth + 1 && !["INPUT", "SELECT"].includes(e.tagName) && getComputedStyle(e).display !== "inline");
}).map(e => e.outerHTML.slice(0, 120) + " " + e.scrollWidth + " in " + e.clientWidth)`

func TestTheOperatorsPageInABrowser(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a browser: not in short mode")
	}
	if dir := os.Getenv(picturesVariable); dir != "" {
		t.Run("pictures", func(t *testing.T) { drawPictures(t, dir) })
	}
	h := start(t, nil)
	h.worker("LATCHKEY_WORKER_ID=one", "LATCHKEY_ADMIN_LISTEN=127.0.0.1:0", "LATCHKEY_REFRESH_BACKOFF_MIN=1h", "LATCHKEY_REFRESH_BACKOFF_MAX=2h")
	b := h.browse()
	const hostile = `<img src=x onerror="window.hacked=1">`
	c := h.issueSpec(meshsim.ConnectSpec{BrokerType: "coinbase", Accounts: []meshsim.Account{{ID: "a1", Name: `<b onclick="x()">Main</b>`}, {ID: "a2", Name: "Savings"}}, WithTokenIDs: true})
	h.publishConnected(hostile, c, time.Time{})
	id := h.event(events.TokenStored, hostile).Data.GrantID
	h.connectAged("mfa", due, spec("gemini"), "m", meshsim.MFARequired())
	h.event(events.TokenExpiring, "mfa")
	for i, broker := range []string{"kraken", "binanceInternational", "robinhood"} {
		h.connectAged(broker, time.Duration(i)*15*time.Minute, spec(broker), broker)
		h.event(events.TokenStored, broker)
	}
	const long = `a"><script>window.hacked=1</script>/averylongnamewithoutanyspaceinitwhichdoesnotfitonthescreenofatelephone`
	h.connectAged(long, due, spec(`x<u>&"`), "failing", meshsim.HTTPStatus(http.StatusServiceUnavailable))
	h.publish(h.subjects.Connected(), `{"userId":"","payload":{}}`)
	h.publish(h.subjects.Connected(), `no JSON at all`)
	h.deadLetters(2)

	// The status, with what is wrong first; each number leads to what it counts.
	b.open("/", "#glance", "dead letters")
	b.shows("#connection", "one, heard")
	b.shows("#conditions-list", "2 dead letters wait")
	b.shows("#stock", "coinbase")
	b.shows("#due", "grants due within")
	b.shows("#stock-note", "old.")
	b.fits("status")
	b.click(`#conditions-list a[href*="dead-letters"]`)
	b.shows("#letters-reasons", "integration.connected")
	b.do(chromedp.NavigateBack())
	b.shows("#stock", "gemini")
	b.click(`#stock a[href*="broker=gemini&state=must_act"]`)
	b.shows("#grants-list", "mfa_required")
	require.Equal(t, 1, inPage[int](b, `document.querySelectorAll("#grants-list tbody tr").length`))

	// By the keyboard alone: find a user, open a grant, refresh it.
	b.open("/", "#stock", "coinbase")
	b.press(kb.Tab)
	require.Equal(t, "Skip to the content", b.focus())
	b.press(kb.Enter)
	b.tab("find")
	b.press(hostile, kb.Enter)
	b.shows("#grants-note", "1 grant of "+hostile)
	b.fits("grants-of-a-user")
	b.tab("Open")
	b.press(kb.Enter)
	b.shows("#grant", id)
	b.shows("#history", events.TokenStored)
	require.Contains(t, inPage[string](b, `location.pathname`), "/grants/"+id)
	require.Contains(t, b.text("#grant"), `<b onclick="x()">Main</b> (a1)`)
	b.tab("Refresh now")
	b.press(kb.Enter)
	b.shows("#ask[open]", "Refresh this grant now?")
	require.Equal(t, "Cancel", b.focus(), "the way back is nearest")
	b.press(kb.Escape)
	require.Equal(t, "Refresh now", b.focus())
	require.Empty(t, h.requests("a1"), "not confirmed")
	b.press(kb.Enter)
	b.shows("#ask[open]", "Refresh this grant now?")
	b.tab("ask-yes")
	b.press(kb.Enter)
	b.shows("#grant-result", "refreshed: version 2")
	b.shows("#history", events.TokenRefreshed)
	require.Len(t, h.requests("a1"), 1)
	b.fits("grant")

	// An open grant follows what happens to it, unless updates pause; they resume.
	b.click("#pause")
	b.shows("#connection", "paused")
	h.disconnect(hostile, "coinbase", "a2")
	h.eventually(func() bool {
		g := h.grants(hostile)
		return len(g) == 1 && len(g[0].Accounts) == 1
	}, "the account stays")
	b.click("#pause")
	b.eventually(func() bool { return !strings.Contains(b.text("#grant"), "Savings") }, "the open grant does not change")
	require.NotContains(t, b.text("#connection"), "paused")

	// A grant that can't be refreshed says why; one that fails with what.
	b.open("/grants?user=mfa", "#grants-note", "1 grant of mfa")
	b.click(`#grants-list a[aria-label^="Open"]`)
	b.shows("#grant-note", "Can't be refreshed now: the user must act first (mfa_required)")
	b.open("/brokers", "#failing", "transient")
	b.shows("#outcomes", "1 failed (transient 1)")
	b.fits("brokers")
	b.click(`#failing a[href*="error=transient"]`)
	b.shows("#grants-list", long)
	b.shows("#grants-list", "HTTP 503")
	b.fits("grants-failing")
	b.open("/grants", "#grants-list", "robinhood")
	b.fits("grants")
	b.open("/workers", "#workers", "one (this one)")
	b.shows("#checks", "MongoDB")
	b.fits("workers")

	// Verdicts are held and released.
	status, body := h.reader().post("/api/verdicts", `{"broker":"kraken","decision":"hold"}`)
	require.Equal(t, http.StatusOK, status, body)
	b.open("/brokers", "#conditions-list", "Verdicts are held at kraken")
	b.click(`#verdicts-table button`)
	b.shows("#ask[open]", "Release verdicts at kraken?")
	b.click("#ask-yes")
	b.shows("#verdicts-table", "not held")

	// Dead letters: all of a reason are replayed, and fail again; then one is dropped, and the rest.
	b.open("/dead-letters", "#letters-reasons", "integration.connected")
	b.shows("#letters-list", "Drop")
	b.fits("dead-letters")
	b.click(`#letters-bulk button:first-child`)
	b.shows("#ask[open]", "Replay 2 dead letters?")
	b.click("#ask-yes")
	b.shows("#letters-result", "2 messages have failed again")
	b.eventually(func() bool { return strings.Count(b.text("#letters-list"), "failed again after a replay") == 2 }, "the list does not say so")
	b.click(`#letters-list li:first-child button:last-child`)
	b.shows("#ask[open]", "for good?")
	b.click("#ask-yes")
	b.eventually(func() bool { return strings.Count(b.text("#letters-list"), "Drop") == 1 }, "it is not dropped")
	b.click(`#letters-bulk button:last-child`)
	b.shows("#ask[open]", "for good?")
	b.click("#ask-yes")
	b.shows("#letters-list", "No dead letter is listed.")

	// What can't be replayed stays, and can be acted upon again.
	h.publish(h.subjects.DeadLetter(events.UnknownTag, "forged"), "nonsense")
	b.shows("#letters-list", "not written by a worker")
	b.click(`#letters-bulk button:first-child`)
	b.shows("#ask[open]", "Replay 1 dead letter?")
	b.click("#ask-yes")
	b.shows("#letters-result", "What is left is still listed.")
	b.eventually(func() bool { return !inPage[bool](b, `document.querySelector("#letters-bulk button").disabled`) }, "it can't be tried again")
	require.Equal(t, "problem", inPage[string](b, `document.querySelector("#letters-result").className`))
	b.click(`#letters-bulk button:last-child`)
	b.shows("#ask[open]", "for good?")
	b.click("#ask-yes")
	b.shows("#letters-list", "No dead letter is listed.")
	b.shows("#conditions-list", "Everything is as it should be")

	// While something is being read for the first time nobody is told that all is well.
	require.True(t, inPage[bool](b, `import("./assets/conditions.js").then(({conditions}) => {
		const read = {at: "2026-03-01T10:00:00Z"};
		conditions({conditions: [], readiness: read, overdue: {}, failing: read, letters: read, verdicts: read});
		return document.getElementById("conditions").hidden;
	})`, chromedp.EvalAwaitPromise))

	require.False(t, inPage[bool](b, `"hacked" in window`))
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Empty(t, b.complaints)
	require.Empty(t, h.stack.Mesh.Ledger().DoubleSpends())
}

// axe has axe-core look for faults that keep people out, where npm can bring it.
func (b *browser) axe() {
	b.t.Helper()
	script, err := os.ReadFile(filepath.Join(b.npm(), "axe-core", "axe.min.js"))
	if err != nil {
		return
	}
	inPage[chromedp.Void](b, string(script)+";undefined")
	faults := inPage[[]string](b, `axe.run().then(r => r.violations.map(v => v.id + ": " + v.help + " " + v.nodes.map(n => n.target + " " + n.failureSummary).join("; ")))`, chromedp.EvalAwaitPromise)
	require.Empty(b.t, faults)
}

// npm returns a folder with the pinned packages, or one that does not exist.
func (b *browser) npm() string {
	b.t.Helper()
	b.installed.Do(func() {
		npm, err := exec.LookPath("npm")
		if err != nil {
			b.t.Log("npm is not installed: accessibility is not checked")
			return
		}
		dir := b.t.TempDir()
		for _, name := range []string{"package.json", "package-lock.json", ".npmrc"} {
			content, err := os.ReadFile(filepath.Join("..", "operator", "npm", name))
			require.NoError(b.t, err)
			require.NoError(b.t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
		}
		cmd := exec.CommandContext(b.harness.ctx, npm, "ci")
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(b.t, err, string(out))
		b.modules = filepath.Join(dir, "node_modules")
	})
	return b.modules
}
