package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress shows the progress of a long walk: as a bar on a terminal, elsewhere as a
// line from time to time. It implements keys.Progress.
type progress struct {
	doing string
	out   io.Writer
	bar   *progressbar.ProgressBar // nil: lines

	total, steps int
	printed      time.Time
}

// printEvery is the time between two lines.
const printEvery = 10 * time.Second

func newProgress(doing string, out io.Writer) *progress {
	p := &progress{doing: doing, out: out, printed: time.Now()}
	if isTerminal(out) {
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
		_ = p.bar.Add(1) // more steps than expected only stop the bar
	case time.Since(p.printed) >= printEvery:
		p.printed = time.Now()
		fmt.Fprintf(p.out, "%s: %d of about %d\n", p.doing, p.steps, p.total)
	}
}

// done removes the bar.
func (p *progress) done() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}
