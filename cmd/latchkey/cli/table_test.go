package cli

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rivo/uniseg"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

func table(t *testing.T, rows ...[]string) string {
	t.Helper()
	var out strings.Builder
	require.NoError(t, printTable(&out, rows...))
	return out.String()
}

func TestATableAlignsWhatItShows(t *testing.T) {
	require.Equal(t, "NAME    STATE\n東京    active\nab\uFFFDcd   expired\ncombe\u0301   -\n",
		table(t, []string{"NAME", "STATE"}, []string{"東京", "active"}, []string{"ab\x1bcd ", "expired"}, []string{"combe\u0301", "-"}))
	require.Equal(t, "CHECK  STATUS  DETAIL\nnats   failed  a long text\n       do      something\n",
		table(t, []string{"CHECK", "STATUS", "DETAIL"}, []string{"nats", "failed", "a long text"}, []string{"", "do", "something"}))
}

// TestColoursAreForTerminals, and add nothing but themselves.
func TestColoursAreForTerminals(t *testing.T) {
	rows := func() [][]string {
		return [][]string{{"ID", "USER", "STATE"}, {"one", "expired", "active"}, {"two", "failed", "must_act"}, {"three", "ok", "new"}}
	}
	var out strings.Builder
	require.NoError(t, printTable(screen{&out}, rows()...))
	coloured := out.String()
	require.Contains(t, coloured, "one    expired  \x1b[32mactive\x1b[0m\n")
	require.Contains(t, coloured, "two    failed   \x1b[33mmust_act\x1b[0m\n")
	require.Contains(t, coloured, "three  ok       new\n")
	require.Equal(t, table(t, rows()...), strings.NewReplacer(red, "", green, "", yellow, "", plain, "").Replace(coloured))
	out.Reset()
	require.NoError(t, asJSON.show(screen{&out}, map[string]string{"state": "active"}))
	require.NotContains(t, out.String(), "\x1b")

	file, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	require.Equal(t, file, screenOf(file, []string{"TERM=xterm"}))
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("there are no terminals here: ", err)
	}
	defer func() { require.NoError(t, terminal.Close()) }()
	for environ, want := range map[string]bool{"TERM=xterm": true, "": false, "TERM=dumb": false, "TERM=xterm NO_COLOR=1": false, "TERM=xterm NO_COLOR=": true} {
		_, coloured := screenOf(terminal, strings.Fields(environ)).(screen)
		require.Equal(t, want, coloured, environ)
	}
}

func listed(t *testing.T, chosen string, grants ...*store.Grant) []string {
	t.Helper()
	var out strings.Builder
	s := &session{out: &out, output: asTable}
	require.NoError(t, s.showGrants(grants, chosen))
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}

// TestAListOfGrantsFits, names the last error of each, and cuts neither ids nor, before all
// else, users.
func TestAListOfGrantsFits(t *testing.T) {
	id := strings.Repeat("a", 32)
	uuid := "0198c2f4-6d3e-7a51-9c55-3f0e9f3f7a10"
	failing := &store.Failing{At: time.Now(), Why: "transient", Detail: "HTTP 503"}
	usual := &store.Grant{ID: id, UserID: uuid, BrokerType: "coinbase", State: store.MustAct, Failing: failing, Due: &store.Due{At: time.Now().Add(-23*time.Hour - time.Minute)}}
	lines := listed(t, "", usual)
	require.Equal(t, strings.Fields("ID USER BROKER STATE DUE IN LAST ERROR"), strings.Fields(lines[0]))
	require.Equal(t, id+"  "+uuid+"  coinbase  must_act  late 23h  transient HTTP 503", lines[1])

	var wide []*store.Grant
	for i, user := range []string{strings.Repeat("u", 300), strings.Repeat("日本", 20), "bob"} {
		g := *usual
		g.UserID, g.BrokerType, g.Failing = user, strings.Repeat("broker", i+1), &store.Failing{Why: "rate_limited", Type: strings.Repeat("error", 12)}
		wide = append(wide, &g)
	}
	wide[2].Failing, wide[2].Reason = nil, events.ReasonRejected
	for _, line := range listed(t, "", wide...) {
		require.LessOrEqual(t, uniseg.StringWidth(line), 120, line)
	}
	lines = listed(t, "", wide...)
	require.Contains(t, lines[1], "rate_limited")
	require.Contains(t, lines[3], "rejected")
	require.True(t, strings.HasPrefix(lines[1], id+"  u"))

	require.Equal(t, []string{"LAST ERROR", "rate_limited " + strings.Repeat("error", 12)}, listed(t, "error", wide[0]))
	lines = listed(t, "user,id", wide[0])
	require.Equal(t, wide[0].UserID+"  "+id, lines[1])
	all := listed(t, allColumns, wide[0])[0]
	for _, c := range grantColumns {
		require.Contains(t, all, c.title)
	}
}

func TestALargeTableIsQuick(t *testing.T) {
	g := &store.Grant{ID: "id", UserID: strings.Repeat("u", 300)}
	grants := make([]*store.Grant, maxPage)
	for i := range grants {
		grants[i] = g
	}
	require.Len(t, listed(t, "", grants...), maxPage+1)
}

func TestHowFarAwayATimeIs(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0s", 90 * time.Second: "90s", 2 * time.Minute: "2m", 119 * time.Minute: "119m", 26 * time.Hour: "26h", 49 * time.Hour: "2d", -5 * time.Minute: "late 5m"} {
		require.Equal(t, want, untilText(d), fmt.Sprint(d))
	}
}

// TestNothingFromOutsideBreaksATerminal: neither an error nor a line of JSON.
func TestNothingFromOutsideBreaksATerminal(t *testing.T) {
	var out, stderr strings.Builder
	require.Equal(t, ExitFailed, Run(t.Context(), []string{"import", "--dry-run", "/nonexistent\x1b[2J\u009b2J"}, nil, &out, &stderr))
	require.Empty(t, out.String())
	require.Equal(t, "latchkey: opening the input: open /nonexistent\uFFFD[2J\uFFFD2J: no such file or directory\n", stderr.String())
	require.Equal(t, "a\uFFFD\nb", printableLines("a\r\nb"))

	require.NoError(t, printJSONLine(&out, map[string]string{"inbox": "_INBOX.\u009b2J\u202e<"}))
	require.Equal(t, `{"inbox":"_INBOX.\u009b2J\u202e<"}`+"\n", out.String())
}
