package bench

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

func (r Report) Table(w io.Writer) error {
	fmt.Fprintf(w, "%s\n\n", r.where())
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.ToUpper(strings.Join(columns, "\t")))
	for _, row := range r.Rows {
		fmt.Fprintln(t, strings.Join(row.cells(), "\t"))
	}
	return t.Flush()
}

func (r Report) where() string {
	return fmt.Sprintf("%s: %d cores (%s), %s, %s; workers, callers and engines share the machine.",
		r.At.Format("2006-01-02"), r.Cores, r.System, r.NATS, r.Database)
}

// Markers around what Document writes.
const (
	documentBegin = "<!-- figures: written by make bench -->\n"
	documentEnd   = "<!-- end of figures -->\n"
)

// Document writes the report into a file, between its markers.
func (r Report) Document(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the document: %w", err)
	}
	before, rest, found := bytes.Cut(text, []byte(documentBegin))
	_, after, ended := bytes.Cut(rest, []byte(documentEnd))
	if !found || !ended {
		return fmt.Errorf("%s has no markers between which figures stand", path)
	}
	var out strings.Builder
	out.Write(before)
	out.WriteString(documentBegin)
	fmt.Fprintf(&out, "%s\n\n", r.where())
	line := func(cells []string) { fmt.Fprintf(&out, "| %s |\n", strings.Join(cells, " | ")) }
	line(columns)
	line(strings.Split(strings.Repeat("---,", len(columns)-1)+"---", ","))
	for _, row := range r.Rows {
		line(row.cells())
	}
	out.WriteString("\nHow each was measured, and what its baseline is:\n\n")
	for _, row := range r.Rows {
		fmt.Fprintf(&out, "- **%s**: %s.", row.Figure, row.Method)
		if row.Against != "" {
			fmt.Fprintf(&out, " Baseline: %s.", row.Against)
		}
		out.WriteString("\n")
	}
	out.WriteString(documentEnd)
	out.Write(after)
	if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
		return fmt.Errorf("writing the document: %w", err)
	}
	return nil
}
