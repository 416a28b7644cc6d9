package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"
)

// format is the value of --output.
type format string

const (
	asTable format = "table"
	asJSON  format = "json"
)

func (f *format) String() string { return string(*f) }
func (f *format) Type() string   { return "table|json" }

func (f *format) Set(s string) error {
	if s != string(asTable) && s != string(asJSON) {
		return errors.New("must be table or json")
	}
	*f = format(s)
	return nil
}

// withOutput gives a command the flag --output.
func withOutput(cmd *cobra.Command) *cobra.Command {
	f := asTable
	cmd.Flags().VarP(&f, "output", "o", "form of the output")
	complete(cmd, "output", string(asTable), string(asJSON))
	return cmd
}

// outputOf returns the value of --output of a command that may have it.
func outputOf(cmd *cobra.Command) format {
	if f := cmd.Flags().Lookup("output"); f != nil {
		return format(f.Value.String())
	}
	return asTable
}

// complete lets shells complete the values of a flag.
func complete(cmd *cobra.Command, flag string, values ...string) {
	completeWith(cmd, flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

func completeWith(cmd *cobra.Command, flag string, offer cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, offer); err != nil {
		panic(err) // there is no such flag
	}
}

func printJSON(w io.Writer, v any) error { return encodeJSON(w, v, "  ") }

// printJSONLine writes v in one line.
func printJSONLine(w io.Writer, v any) error { return encodeJSON(w, v, "") }

func encodeJSON(w io.Writer, v any, indent string) error {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indent)
	if err := encoder.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(w, escaped(out.String()))
	return err
}

// show writes v as JSON, or as a table.
func (f format) show(w io.Writer, v any, rows ...[]string) error {
	if f == asJSON {
		return printJSON(w, v)
	}
	return printTable(w, rows...)
}

// escaped writes the characters of a JSON text that could break a terminal as JSON
// escapes. They can only stand in strings.
func escaped(encoded string) string {
	var b strings.Builder
	for _, r := range encoded {
		if r == '\n' || unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

// printable replaces characters that could break a terminal or a table: names come
// from outside.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// printableLines is printable for a text of several lines.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = printable(line)
	}
	return strings.Join(lines, "\n")
}

// stamp formats a time, or a dash if there is none.
func stamp(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}
