package chaos

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

type figure int

const (
	lost          figure = iota // grants dead at the end
	reused                      // replaced refresh tokens presented without a lost answer
	repeated                    // refresh tokens presented again within a call
	badTokens                   // access tokens handed out that were not valid
	missing                     // events
	contradicting               // events
	unannounced                 // grants without a valid access token
	waited                      // requests for healthy grants
	unparked                    // messages lost, or parked though they could be handled
	mustBeZero                  // how many figures there are up to here

	lostInLoss   // with an answer that a killed or suspended process alone held
	reusedInLoss // likewise
	ambiguous    // replaced refresh tokens presented because their answer was lost
	calls
	issued
	refused
	unanswered
	lateEvents
	figures
)

// titles of the figures in the table of the run and in that of the scenes.
var titles = [figures]struct{ row, column string }{
	lost:          {"grants lost", "LOST"},
	reused:        {"replaced refresh tokens presented without a lost answer", "REUSED"},
	repeated:      {"refresh tokens presented more than once in a call", "REPEATED"},
	badTokens:     {"access tokens handed out that were not valid", "INVALID"},
	missing:       {"events missing", "MISSING"},
	contradicting: {"events that contradict what is stored", "CONTRADICTING"},
	unannounced:   {"grants that were without a valid access token unannounced", "UNANNOUNCED"},
	waited:        {"requests for healthy grants that waited for a sick broker", "WAITED"},
	unparked:      {"subjects on which messages were lost, or good ones parked", "UNPARKED"},
	lostInLoss:    {"grants lost with an answer that a killed or suspended process alone held", ""},
	reusedInLoss:  {"retries after an answer that a killed or suspended process alone held", ""},
	ambiguous:     {"ambiguous retries (the answer was lost on the way)", "AMBIGUOUS"},
	calls:         {"refresh calls", "CALLS"},
	issued:        {"refreshes that brought tokens", "TOKENS"},
	refused:       {"token requests refused", "REFUSED"},
	unanswered:    {"token requests unanswered", "UNANSWERED"},
	lateEvents:    {"events published more than " + late.String() + " after their change", "LATE"},
}

// effects are the counts from the beginning of a scene to that of the next.
type effects struct {
	counts [figures]int
	gap    time.Duration // the longest that began then
}

func (e *effects) add(more effects) {
	for f, n := range more.counts {
		e.counts[f] += n
	}
	e.gap = max(e.gap, more.gap)
}

// verdict holds the judge's counts by episode.
type verdict struct {
	timeline     *timeline
	effects      []effects
	explanations []string
	unexplained  int
}

func (v *verdict) count(f figure, at time.Time) { v.add(f, at, 1) }

func (v *verdict) add(f figure, at time.Time, n int) { v.effects[v.timeline.at(at)].counts[f] += n }

// longest notes a time without a valid access token.
func (v *verdict) longest(at time.Time, gap time.Duration) {
	e := &v.effects[v.timeline.at(at)]
	e.gap = max(e.gap, gap)
}

// say explains a figure that must be 0; the first few will do.
func (v *verdict) say(format string, args ...any) {
	const enough = 30
	if len(v.explanations) >= enough {
		v.unexplained++
		return
	}
	v.explanations = append(v.explanations, fmt.Sprintf(format, args...))
}

// since gives a moment as the lines of the scenes do.
func (r *run) since(at time.Time) string { return fmt.Sprintf("%.1fs", at.Sub(r.start).Seconds()) }

func (r *run) report(v *verdict) error {
	var total effects
	for _, e := range v.effects {
		total.add(e)
	}
	fmt.Fprintf(r.Out, "\nSeed %d, %d grants, %d workers, %s\n\n", r.Seed, r.Grants, r.Workers, r.scenes())
	w := tabwriter.NewWriter(r.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "FIGURE\tCOUNT\tMUST BE")
	bad := 0
	for f := range mustBeZero {
		fmt.Fprintf(w, "%s\t%d\t0\n", titles[f].row, total.counts[f])
		bad += total.counts[f]
	}
	for f := mustBeZero + 1; f < figures; f++ {
		fmt.Fprintf(w, "%s\t%d\t\n", titles[f].row, total.counts[f])
	}
	fmt.Fprintf(w, "events heard twice (same id)\t%d\t\n", r.listener.repeats)
	fmt.Fprintf(w, "access tokens handed out\t%d\t\n", r.readers.given)
	fmt.Fprintf(w, "reports of access tokens that were refused\t%d\t\n", r.readers.reports)
	fmt.Fprintf(w, "longest time of a grant without a valid access token\t%s\t\n", total.gap.Round(100*time.Millisecond))
	fmt.Fprintln(w)
	if err := w.Flush(); err != nil {
		return fmt.Errorf("printing the table: %w", err)
	}
	if err := r.reportScenes(v); err != nil {
		return err
	}
	for _, line := range v.explanations {
		fmt.Fprintln(r.Out, "  "+line)
	}
	if v.unexplained > 0 {
		fmt.Fprintf(r.Out, "  and %d more\n", v.unexplained)
	}
	if bad > 0 {
		return ErrJudged
	}
	return nil
}

// reportScenes prints the effects of each scene, summed over all times it was played.
func (r *run) reportScenes(v *verdict) error {
	type sum struct {
		effects
		played int
	}
	var names []string
	sums := map[string]*sum{}
	for i, e := range r.timeline.episodes {
		if sums[e.scene] == nil {
			sums[e.scene] = &sum{}
			names = append(names, e.scene)
		}
		sums[e.scene].played++
		sums[e.scene].add(v.effects[i])
	}
	columns := []figure{calls, issued, ambiguous, refused, unanswered, lateEvents}
	for f := range mustBeZero {
		columns = append(columns, f)
	}
	w := tabwriter.NewWriter(r.Out, 0, 4, 2, ' ', 0)
	header := []string{"SCENE", "PLAYED"}
	for _, f := range columns {
		header = append(header, titles[f].column)
	}
	fmt.Fprintln(w, strings.Join(append(header, "LONGEST GAP"), "\t"))
	for _, name := range names {
		s := sums[name]
		fmt.Fprintf(w, "%s\t%d", name, s.played)
		for _, f := range columns {
			fmt.Fprintf(w, "\t%d", s.counts[f])
		}
		fmt.Fprintf(w, "\t%s\n", s.gap.Round(100*time.Millisecond))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("printing the table of scenes: %w", err)
	}
	fmt.Fprintln(r.Out)
	return nil
}
