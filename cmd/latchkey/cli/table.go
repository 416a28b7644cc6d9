package cli

import (
	"io"
	"strings"

	"github.com/rivo/uniseg"
)

// gap is the number of spaces between two columns.
const gap = 2

// printTable writes rows in columns. The first row may hold the titles. The last cell of a
// row may be of any length.
func printTable(out io.Writer, rows ...[]string) error {
	for _, row := range rows {
		for i, cell := range row {
			row[i] = printable(cell)
		}
	}
	widths := widthsOf(rows)
	var b strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			b.WriteString(paint(out, titleOf(rows, row, i), cell))
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-uniseg.StringWidth(cell)+gap))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// widthsOf returns how wide each column is, without the last cells of rows.
func widthsOf(rows [][]string) (widths []int) {
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			if i < len(row)-1 {
				widths[i] = max(widths[i], uniseg.StringWidth(cell))
			}
		}
	}
	return widths
}

// titleOf returns what a cell is: the title of its column, or the first cell of a row of
// two.
func titleOf(rows [][]string, row []string, i int) string {
	if len(row) == 2 && i == 1 && len(rows[0]) == 2 {
		return row[0]
	}
	if i < len(rows[0]) {
		return rows[0][i]
	}
	return ""
}

// fit cuts cells of a table so that no line is wider than most: in the given columns, one
// after the other, down to the least width of each.
func fit(rows [][]string, most int, columns ...elastic) {
	for _, c := range columns {
		widths := widthsOf(rows)
		wide, widest := 0, 0
		for _, row := range rows {
			wide = max(wide, lineWidth(widths, row))
			widest = max(widest, uniseg.StringWidth(row[c.column]))
		}
		to := max(widest-max(wide-most, 0), c.least)
		for _, row := range rows {
			row[c.column] = cut(row[c.column], to)
		}
	}
}

// elastic is a column that may be cut, down to a width.
type elastic struct{ column, least int }

func lineWidth(widths []int, row []string) int {
	sum := uniseg.StringWidth(row[len(row)-1])
	for _, w := range widths[:len(row)-1] {
		sum += w + gap
	}
	return sum
}

// cut shortens a text to a width, and shows that it did.
func cut(text string, width int) string {
	if uniseg.StringWidth(text) <= width {
		return text
	}
	var b strings.Builder
	left := width - 1
	for g := uniseg.NewGraphemes(text); g.Next() && g.Width() <= left; left -= g.Width() {
		b.WriteString(g.Str())
	}
	return b.String() + "…"
}

// pad fills a text up to a width.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(width-uniseg.StringWidth(text), 0))
}
