package cli

import (
	"io"
	"runtime"
	"slices"
	"strings"
)

// screen is a terminal that shows colours.
type screen struct{ io.Writer }

// screenOf returns out as a screen if it is a terminal, and the user wants colours there:
// see no-color.org.
func screenOf(out io.Writer, environ []string) io.Writer {
	variable := func(name string) (value string) {
		for _, pair := range environ {
			if v, ok := strings.CutPrefix(pair, name+"="); ok {
				value = v // the last counts
			}
		}
		return value
	}
	term := variable("TERM")
	if !isTerminal(out) || variable("NO_COLOR") != "" || term == "" || term == "dumb" || runtime.GOOS == "windows" {
		return out
	}
	return screen{out}
}

const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	plain  = "\x1b[0m"
)

// painted are the titles of what has words with a colour: a user may be called "expired".
var painted = []string{"STATE", "STATUS", "OUTCOME", "ACTION", "KIND", "IN NATS", "state", "status"}

// colours are those of words, which say the same without them.
var colours = map[string]string{
	"active": green, "must_act": yellow, "expired": red,
	"ok": green, "warning": yellow, "failed": red,
	"yes": green, "no": red, "outdated": yellow,
	"handed_out": green, "refused": red, "opened": yellow, "erased": yellow, "operated": yellow, "exported": yellow, "lost": red,
	"token.stored": green, "token.refreshed": green, "token.expiring": yellow, "token.expired": red,
	"FAULT": red,
}

// paint returns a word under a title in its colour, where there are colours. Around it
// there may be spaces.
func paint(out io.Writer, title, word string) string {
	if _, ok := out.(screen); !ok || !slices.Contains(painted, title) {
		return word
	}
	colour, ok := colours[strings.TrimSpace(word)]
	if !ok {
		return word
	}
	return colour + word + plain
}
