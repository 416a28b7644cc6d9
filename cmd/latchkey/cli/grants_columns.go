package cli

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/view"
	"github.com/latchkey/latchkey/store"
)

// grantColumn is a column of a list of grants.
type grantColumn struct {
	name, title string
	cell        func(view.Grant) string
}

var grantColumns = []grantColumn{
	{"id", "ID", func(g view.Grant) string { return g.ID }},
	{"user", "USER", func(g view.Grant) string { return g.User }},
	{"broker", "BROKER", func(g view.Grant) string { return g.Broker }},
	{"state", "STATE", func(g view.Grant) string { return string(g.State) }},
	{"due_in", "DUE IN", func(g view.Grant) string {
		return orDash(g.Due, func(d *view.Due) string { return untilText(time.Until(d.At)) })
	}},
	{"error", "LAST ERROR", lastErrorText},
	{"reason", "REASON", func(g view.Grant) string { return cmp.Or(string(g.Reason), "-") }},
	{"version", "VERSION", func(g view.Grant) string { return strconv.FormatInt(g.Version, 10) }},
	{"connected", "CONNECTED", func(g view.Grant) string { return stamp(&g.ConnectedAt) }},
	{"access_ends", "ACCESS ENDS", func(g view.Grant) string { return lifeText(g.Access) }},
	{"refresh_ends", "REFRESH ENDS", func(g view.Grant) string { return lifeText(g.Refresh) }},
	{"due", "DUE", func(g view.Grant) string { return orDash(g.Due, dueText) }},
	{"tries", "TRIES", func(g view.Grant) string { return strconv.Itoa(g.Tries) }},
	{"error_at", "ERROR AT", func(g view.Grant) string {
		return orDash(g.LastError, func(e *view.LastError) string { return stamp(&e.At) })
	}},
	{"accounts", "ACCOUNTS", accountsText},
	{"labels", "LABELS", func(g view.Grant) string { return cmp.Or(labelsText(g.Labels), "-") }},
}

// shownColumns is how many of the columns are shown unless others are chosen, and tableWidth
// what they have room for.
const (
	shownColumns = 6
	tableWidth   = 120
)

const allColumns = "all"

func columnNames() []string {
	names := make([]string, len(grantColumns))
	for i, c := range grantColumns {
		names[i] = c.name
	}
	return names
}

// columnsFlag adds --columns: names of columns with commas between them.
func columnsFlag(cmd *cobra.Command, value *string) {
	names := columnNames()
	cmd.Flags().Var(&parsed[string]{value, "columns", func(text string) (string, error) {
		for name := range strings.SplitSeq(text, ",") {
			if text != allColumns && !slices.Contains(names, name) {
				return "", errors.New("must be " + allColumns + ", or some of " + strings.Join(names, ",") + " with commas between them")
			}
		}
		return text, nil
	}}, "columns", "columns of the table, in this order: "+allColumns+", or some of "+strings.Join(names, ","))
	completeWith(cmd, "columns", func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		begun := typed[:strings.LastIndex(typed, ",")+1]
		offered := []string{}
		for _, name := range names {
			if !slices.Contains(strings.Split(begun, ","), name) {
				offered = append(offered, begun+name)
			}
		}
		if begun == "" {
			offered = append(offered, allColumns)
		}
		return offered, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	})
}

// showGrants shows grants. chosen is the value of --columns.
func (s *session) showGrants(grants []*store.Grant, chosen string) error {
	columns := grantColumns[:shownColumns]
	switch chosen {
	case "":
	case allColumns:
		columns = grantColumns
	default:
		columns = nil
		for name := range strings.SplitSeq(chosen, ",") {
			columns = append(columns, grantColumns[slices.Index(columnNames(), name)])
		}
	}
	views := make([]view.Grant, len(grants))
	rows := [][]string{make([]string, len(columns))}
	for i, c := range columns {
		rows[0][i] = c.title
	}
	for i, g := range grants {
		views[i] = view.OfGrant(g)
		row := make([]string, len(columns))
		for i, c := range columns {
			row[i] = c.cell(views[len(rows)-1])
		}
		rows = append(rows, row)
	}
	if chosen == "" {
		names := columnNames()
		fit(rows, tableWidth, elastic{slices.Index(names, "error"), 16}, elastic{slices.Index(names, "broker"), 8}, elastic{slices.Index(names, "user"), 12})
	}
	return s.show(views, rows...)
}

// lastErrorText names the last error of a grant, or why it needs its user.
func lastErrorText(g view.Grant) string {
	if g.LastError == nil {
		return cmp.Or(string(g.Reason), "-")
	}
	return strings.TrimSpace(g.LastError.Class + " " + cmp.Or(g.LastError.Type, g.LastError.Detail))
}

func accountsText(g view.Grant) string {
	ids := make([]string, len(g.Accounts))
	for i, account := range g.Accounts {
		ids[i] = account.ID
	}
	return cmp.Or(strings.Join(ids, ","), "-")
}

func labelsText(labels map[string]string) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		out = append(out, name+"="+labels[name])
	}
	return strings.Join(out, ",")
}

// untilText says how far away a time is, in its largest unit.
func untilText(d time.Duration) string {
	late := ""
	if d < 0 {
		d, late = -d, "late "
	}
	for _, unit := range []struct {
		name string
		size time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}} {
		if d >= 2*unit.size {
			return fmt.Sprintf("%s%d%s", late, d/unit.size, unit.name)
		}
	}
	return fmt.Sprintf("%s%ds", late, d/time.Second)
}
