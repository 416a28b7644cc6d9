package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
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
	return group("keys", "Look at the data keys, and rotate them",
		a.keysStatus(), a.keysRewrap(), a.keysReseal(), a.keysPrune())
}

// kekView is what is shown of a KMS key.
type kekView struct {
	// KEK is its ARN; empty for data keys that are not stored.
	KEK      string `json:"kek"`
	DataKeys int    `json:"dataKeys"`
	Sets     int    `json:"tokenSets"`
}

// dataKeyView is what is shown of a data key.
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
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show under which KMS keys the data keys are, and what they seal",
		Long: `Counts data keys and token sets for each KMS key; with --keys, lists each data
key. Needs MongoDB, and with --keys NATS too. KMS is not asked.

A line "not stored" counts token sets whose data key is missing: they don't open.`,
		Example: `  latchkey keys status
  latchkey keys status --keys --output json | jq '.[] | select(.tokenSets > 0)'`,
		Args: cobra.NoArgs,
	}
	output := outputFlag(cmd)
	each := cmd.Flags().Bool("keys", false, "list each data key")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.with(cmd, func(s *session) error {
			db, err := s.store()
			if err != nil {
				return err
			}
			census, err := keys.TakeCensus(s.ctx, db)
			if err != nil {
				return err
			}
			if !*each {
				return showKEKs(s.out, *output, census)
			}
			streams, err := s.readStreams()
			if err != nil {
				return err
			}
			retirement, err := db.Retirement(s.ctx)
			if err != nil {
				return err
			}
			return showDataKeys(s.out, *output, viewKeys(census, streams, bounds(s.cfg), retirement.Before, time.Now()))
		})
	}
	return cmd
}

func showKEKs(out io.Writer, output format, census keys.Census) error {
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
	return output.show(out, views, rows...)
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

func showDataKeys(out io.Writer, output format, views []dataKeyView) error {
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
	return output.show(out, views, rows...)
}

// bounds are those that workers with this configuration keep to.
func bounds(cfg config.Config) keys.Bounds {
	return keys.Bounds{MaxAge: cfg.DataKeys.MaxAge, CacheAge: cfg.DataKeys.CacheAge, Outage: cfg.DataKeys.Outage}
}

// readStreams counts what is sealed in NATS under the data keys of the database.
func (s *session) readStreams() (keys.Streams, error) {
	_, js, err := s.installation()
	if err != nil {
		return keys.Streams{}, err
	}
	letters, err := s.deadLetters(nil)
	if err != nil {
		return keys.Streams{}, err
	}
	return keys.ReadStreams(s.ctx, letters, func(ctx context.Context) (map[string]int, error) {
		return refresher.RecoveryKeys(ctx, js, s.cfg.NATS.Subjects())
	})
}

// rateFlag gives a command the flag --rate.
func rateFlag(cmd *cobra.Command, n int, what string) *int {
	return cmd.Flags().Int("rate", n, what+" a second at most; 0: no limit")
}

// limiter returns the limiter of a rate.
func limiter(n int) (*rate.Limiter, error) {
	switch {
	case n < 0:
		return nil, &exitError{ExitUsage, errors.New("--rate must not be negative")}
	case n == 0:
		return rate.NewLimiter(rate.Inf, 1), nil
	}
	return rate.NewLimiter(rate.Limit(n), 1), nil
}

// faults prints data keys or grants with what is wrong with them.
func faults(out io.Writer, what string, all []keys.Fault) {
	for _, f := range all {
		fmt.Fprintf(out, "%s %s: %s\n", what, printable(f.ID), printable(f.Error))
	}
}
