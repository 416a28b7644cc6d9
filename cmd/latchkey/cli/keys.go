package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"github.com/latchkey/latchkey/cmd/latchkey/keys"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/refresher"
)

func (a *app) keysCommand() *cobra.Command {
	return group("keys", "Show the data keys, and rotate them",
		a.keysStatus(), a.keysRewrap(), a.keysReseal(), a.keysPrune())
}

// kekView shows a KMS key.
type kekView struct {
	// KEK is its ARN; empty for data keys that are not stored.
	KEK      string `json:"kek"`
	DataKeys int    `json:"dataKeys"`
	Sets     int    `json:"tokenSets"`
}

// dataKeyView shows a data key.
type dataKeyView struct {
	ID         string     `json:"id"`
	KEK        string     `json:"kek"`
	CreatedAt  time.Time  `json:"createdAt"`
	SealsUntil *time.Time `json:"sealsUntil,omitempty"`
	// Seals: workers may still seal under it.
	Seals bool `json:"seals"`
	// PerUser: it belongs to one user alone.
	PerUser     bool `json:"perUser"`
	Sets        int  `json:"tokenSets"`
	DeadLetters int  `json:"deadLetters"`
	Recovery    int  `json:"recoveryEntries"`
}

func (a *app) keysStatus() *cobra.Command {
	var each bool
	cmd := withOutput(&cobra.Command{
		Use:   "status",
		Short: "Show which KMS keys wrap the data keys, and what the data keys seal",
		Long: `Counts data keys and token sets for each KMS key; with --keys, lists each data key.
It needs MongoDB, and with --keys NATS too. It does not call KMS.

The line "not stored" counts token sets whose data key is missing: nobody can open
them.`,
		Example: `  latchkey keys status
  latchkey keys status --keys --output json | jq '.[] | select(.tokenSets > 0)'`,
		Args: cobra.NoArgs,
		RunE: a.session((*session).openStore, func(s *session) error {
			census, err := keys.TakeCensus(s.ctx, s.db)
			if err != nil {
				return err
			}
			if !each {
				return s.showKEKs(census)
			}
			streams, err := s.readStreams()
			if err != nil {
				return err
			}
			retirement, err := s.db.Retirement(s.ctx)
			if err != nil {
				return err
			}
			return s.showDataKeys(viewKeys(census, streams, bounds(s.cfg), retirement.Before, time.Now()))
		}),
	})
	cmd.Flags().BoolVar(&each, "keys", false, "list each data key")
	return cmd
}

func (s *session) showKEKs(census keys.Census) error {
	views := []kekView{}
	view := func(kek string) *kekView {
		i := slices.IndexFunc(views, func(v kekView) bool { return v.KEK == kek })
		if i < 0 {
			i = len(views)
			views = append(views, kekView{KEK: kek})
		}
		return &views[i]
	}
	for _, key := range census.Keys {
		v := view(key.KEK)
		v.DataKeys++
		v.Sets += key.Sets
	}
	for _, sets := range census.Missing {
		view("").Sets += sets
	}
	rows := [][]string{{"KMS KEY", "DATA KEYS", "TOKEN SETS"}}
	for _, v := range views {
		rows = append(rows, []string{cmp.Or(v.KEK, "not stored"), strconv.Itoa(v.DataKeys), strconv.Itoa(v.Sets)})
	}
	return s.show(views, rows...)
}

func viewKeys(census keys.Census, streams keys.Streams, bounds keys.Bounds, retired, now time.Time) []dataKeyView {
	views := []dataKeyView{}
	for _, key := range census.Keys {
		until := bounds.SealsUntil(key.WrappedKey)
		views = append(views, dataKeyView{
			ID: key.ID, KEK: key.KEK, CreatedAt: key.CreatedAt, SealsUntil: &until,
			Seals: now.Before(until) && !key.CreatedAt.Before(retired), PerUser: key.Scope != "",
			Sets: key.Sets, DeadLetters: streams.DeadLetters[key.ID], Recovery: streams.Recovery[key.ID],
		})
	}
	for id, sets := range census.Missing {
		views = append(views, dataKeyView{ID: id, Sets: sets, DeadLetters: streams.DeadLetters[id], Recovery: streams.Recovery[id]})
	}
	return views
}

func (s *session) showDataKeys(views []dataKeyView) error {
	rows := [][]string{{"DATA KEY", "CREATED", "SEALS", "TOKEN SETS", "DEAD LETTERS", "RECOVERY", "KMS KEY"}}
	for _, v := range views {
		seals := "no"
		switch {
		case v.Seals:
			seals = "until " + stamp(v.SealsUntil)
		case v.KEK == "":
			seals, v.KEK = "not stored", "-"
		}
		rows = append(rows, []string{v.ID, stamp(&v.CreatedAt), seals, strconv.Itoa(v.Sets), strconv.Itoa(v.DeadLetters), strconv.Itoa(v.Recovery), v.KEK})
	}
	return s.show(views, rows...)
}

func bounds(cfg config.Config) keys.Bounds {
	return keys.Bounds{MaxAge: cfg.DataKeys.MaxAge, CacheAge: cfg.DataKeys.CacheAge, Outage: cfg.DataKeys.Outage}
}

// readStreams counts what NATS holds that is sealed under each data key.
func (s *session) readStreams() (keys.Streams, error) {
	if err := s.openInstallation(); err != nil {
		return keys.Streams{}, err
	}
	if err := s.openDeadLetters(); err != nil {
		return keys.Streams{}, err
	}
	return keys.ReadStreams(s.ctx, s.letters, func(ctx context.Context) (map[string]int, error) {
		return refresher.RecoveryKeys(ctx, s.js, s.cfg.NATS.Subjects())
	})
}

func rateFlag(cmd *cobra.Command, perSecond *int, standard int, what string) {
	countFlag(cmd, perSecond, "rate", standard, 0, math.MaxInt, what+" a second at most; 0: no limit")
}

func limiter(perSecond int) *rate.Limiter {
	if perSecond == 0 {
		return rate.NewLimiter(rate.Inf, 1)
	}
	return rate.NewLimiter(rate.Limit(perSecond), 1)
}

// report prints the report of a walk over the data keys as JSON, or as text.
func (s *session) report(report any, text func()) error {
	if s.output == asJSON {
		return printJSON(s.out, report)
	}
	text()
	return nil
}

// printFaults prints data keys or grants with what is wrong with them.
func printFaults(out io.Writer, what string, all []keys.Fault) {
	for _, f := range all {
		fmt.Fprintf(out, "%s %s: %s\n", what, printable(f.ID), printable(f.Error))
	}
}
