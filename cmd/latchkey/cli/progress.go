package cli

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"
)

// progress shows how a long walk goes on: a bar on a terminal, elsewhere a line
// from time to time. It implements keys.Progress.
type progress struct {
	doing string
	out   io.Writer
	bar   *progressbar.ProgressBar // nil: lines

	total, steps int
	said         time.Time
}

// sayEvery is how far lines are apart.
const sayEvery = 10 * time.Second

func newProgress(doing string, out io.Writer) *progress {
	p := &progress{doing: doing, out: out, said: time.Now()}
	if f, ok := out.(*os.File); ok && isatty.IsTerminal(f.Fd()) {
		p.bar = progressbar.NewOptions(-1, progressbar.OptionSetWriter(out), progressbar.OptionSetDescription(doing),
			progressbar.OptionShowCount(), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	}
	return p
}

func (p *progress) Total(n int) {
	p.total = n
	if p.bar != nil {
		p.bar.ChangeMax(n)
	}
}

func (p *progress) Step() {
	p.steps++
	switch {
	case p.bar != nil:
		_ = p.bar.Add(1) // more steps than were expected only stop the bar
	case time.Since(p.said) >= sayEvery:
		p.said = time.Now()
		fmt.Fprintf(p.out, "%s: %d of about %d\n", p.doing, p.steps, p.total)
	}
}

// done removes the bar.
func (p *progress) done() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}
