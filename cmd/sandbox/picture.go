package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/template"
	"time"
	"unicode/utf8"
)

// recording passes on what is written, and notes when each line began.
type recording struct {
	to  io.Writer
	now func() time.Time

	mu    sync.Mutex
	lines []recorded
	rest  string // a line that has not ended
}

type recorded struct {
	at   time.Time
	text string
}

func (r *recording) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	parts := strings.Split(r.rest+string(p), "\n")
	r.rest = parts[len(parts)-1]
	for _, text := range parts[:len(parts)-1] {
		r.lines = append(r.lines, recorded{r.now(), text})
	}
	return r.to.Write(p)
}

// The picture is a terminal of this size, in pixels and in lines. It plays faster than the
// recording, and stands still at the end before it begins again.
const (
	pictureRows, pictureMargin = 30, 14
	lineHeight                 = 17
	charWidth                  = 7.25
	pictureSpeed               = 1.5
	pictureRest                = 8 * time.Second
)

// save writes the recording as an SVG in which the lines move up as they come.
func (r *recording) save(file string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out bytes.Buffer
	if err := pictureTemplate.Execute(&out, r.picture()); err != nil {
		return fmt.Errorf("drawing the picture: %w", err)
	}
	if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil { //nolint:gosec // everybody may look at it
		return fmt.Errorf("saving the picture: %w", err)
	}
	return nil
}

type picture struct {
	Width, Height, Margin, InnerHeight int
	Seconds                            float64
	Last                               int // where the lines are at the end
	Lines                              []pictureLine
	Moves                              []pictureMove
}

type pictureLine struct {
	Y           int
	Class, Text string
}

// pictureMove says where the lines are from a share of the time on.
type pictureMove struct {
	Percent string
	Y       int
}

func (r *recording) picture() picture {
	p := picture{Margin: pictureMargin, InnerHeight: pictureRows * lineHeight}
	widest := 0
	var length time.Duration
	if len(r.lines) > 0 {
		length = time.Duration(float64(r.lines[len(r.lines)-1].at.Sub(r.lines[0].at))/pictureSpeed) + pictureRest
	}
	for i, line := range r.lines {
		widest = max(widest, utf8.RuneCountInString(line.text))
		p.Lines = append(p.Lines, pictureLine{pictureMargin + (i+1)*lineHeight - 5, classOf(line.text), line.text})
		y := (pictureRows - (i + 1)) * lineHeight // the newest line is at the bottom
		share := fmt.Sprintf("%.2f%%", 100*float64(line.at.Sub(r.lines[0].at))/pictureSpeed/float64(length))
		if n := len(p.Moves); n > 0 && p.Moves[n-1].Percent == share {
			p.Moves[n-1].Y = y
		} else {
			p.Moves = append(p.Moves, pictureMove{share, y})
		}
		p.Last = y
	}
	p.Seconds = length.Seconds()
	p.Width, p.Height = int(float64(widest)*charWidth)+2*pictureMargin, p.InnerHeight+2*pictureMargin
	return p
}

// classOf colours a line by what it is about; the colour says nothing that the words don't.
func classOf(text string) string {
	for _, c := range []struct{ class, word string }{
		{"good", "token.stored"},
		{"good", "token.refreshed"},
		{"warn", "token.expiring"},
		{"bad", "token.expired"},
		{"bad", "token.revoked"},
		{"bad", "dead letter:"},
		{"ask", "tokens asked for"},
		{"dim", "scheduled:"},
	} {
		if strings.Contains(text, c.word) {
			return c.class
		}
	}
	return "plain"
}

var pictureTemplate = template.Must(template.New("picture").Funcs(template.FuncMap{"xml": template.HTMLEscapeString}).Parse(
	`<svg xmlns="http://www.w3.org/2000/svg" width="{{.Width}}" height="{{.Height}}" viewBox="0 0 {{.Width}} {{.Height}}" role="img">
<title>What make demo shows</title>
<!-- Made by: make picture -->
<style>
text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre; fill: #d4d8de }
.good { fill: #7ee08f } .warn { fill: #f2cc60 } .bad { fill: #ff8f85 } .ask { fill: #79c0ff } .dim { fill: #8b949e }
#lines { transform: translateY({{.Last}}px); animation: up {{printf "%.1f" .Seconds}}s step-end infinite }
@keyframes up {
{{range .Moves}}{{.Percent}}{transform:translateY({{.Y}}px)}
{{end}}}
@media (prefers-reduced-motion: reduce) { #lines { animation: none } }
</style>
<rect width="100%" height="100%" rx="8" fill="#15181d"/>
<clipPath id="window"><rect x="0" y="{{.Margin}}" width="{{.Width}}" height="{{.InnerHeight}}"/></clipPath>
<g clip-path="url(#window)"><g id="lines">
{{range .Lines}}{{if .Text}}<text x="{{$.Margin}}" y="{{.Y}}" class="{{.Class}}" xml:space="preserve">{{xml .Text}}</text>
{{end}}{{end}}</g></g>
</svg>
`))
