package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/client"
)

func (a *app) tokenCommand() *cobra.Command {
	var in events.TokenRequest
	var minTTL time.Duration
	var reveal bool
	get := withOutput(&cobra.Command{
		Use:   "get USER",
		Short: "Request a user's current tokens from the running workers",
		Example: `  latchkey token get alice
  latchkey token get alice --broker coinbase --min-ttl 5m`,
		Args:              oneUser,
		ValidArgsFunction: once(a.offer(offerUsers)),
		PreRunE: func(cmd *cobra.Command, args []string) error {
			in.UserID = args[0]
			if cmd.Flags().Changed("min-ttl") {
				seconds := wholeSeconds(minTTL)
				in.MinTTLSeconds = &seconds
			}
			return nil
		},
		RunE: a.session((*session).guard, func(s *session) error {
			if err := s.openNATS(); err != nil {
				return err
			}
			latchkey, err := client.New(s.nc, client.Prefix(s.cfg.NATS.Prefix), client.Once())
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Tokens.Timeout+5*time.Second)
			defer cancel()
			reply, err := latchkey.Tokens(ctx, in)
			var refused *client.RefusedError
			switch {
			case errors.As(err, &refused):
				return &exitError{ExitRefused, fmt.Errorf("refused: %s", printable(refused.Code))}
			case errors.Is(err, client.ErrNoWorker):
				return errors.New("no worker answers token requests here; is one running, with the same nats.url and nats.prefix?")
			case err != nil:
				return err
			}
			return s.showReply(reply, reveal)
		}),
	})
	a.brokerFlag(get, &in.BrokerType, "only accounts")
	get.Flags().StringVar(&in.AccountID, "account", "", "only this account id")
	completeWith(get, "account", a.offer(offerAccounts))
	durationFlag(get, &minTTL, "min-ttl", 0, notNegative, "refresh first if a token expires sooner than this (default: the worker's tokens.min_ttl)")
	get.Flags().BoolVar(&reveal, "reveal", false, "print whole tokens, not only their last characters")
	return group("token", "Request tokens", get)
}

// wholeSeconds rounds up, so that it is never less than what was asked for.
func wholeSeconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }

// tokenView shows one account's token, or why there is none.
type tokenView struct {
	Broker  string `json:"broker"`
	Account string `json:"account"`
	Name    string `json:"name,omitempty"`
	// ExpiresAt is absent if the token never expires, or nobody knows when.
	ExpiresAt *time.Time `json:"expiresAt,omitempty"`
	// Token is masked without --reveal.
	Token string `json:"token,omitempty"`
	// Code and Reason say why there is no token.
	Code   string        `json:"code,omitempty"`
	Reason events.Reason `json:"reason,omitempty"`
}

func (s *session) showReply(reply events.TokenReply, reveal bool) error {
	views := []tokenView{}
	rows := [][]string{{"BROKER", "ACCOUNT", "NAME", "EXPIRES", "TOKEN"}}
	for i, t := range reply.AccessTokens {
		v := tokenView{Broker: t.BrokerType, Account: t.AccountID, Name: t.AccountName, Token: t.AccessToken.Masked()}
		if reveal {
			v.Token = t.AccessToken.Reveal()
		}
		expires := "never"
		if i < len(reply.Expiries) && reply.Expiries[i].ExpiresAt != nil {
			v.ExpiresAt = reply.Expiries[i].ExpiresAt
			expires = v.ExpiresAt.Format(time.RFC3339)
		}
		views = append(views, v)
		rows = append(rows, []string{v.Broker, v.Account, v.Name, expires, v.Token})
	}
	for _, u := range reply.Unavailable {
		views = append(views, tokenView{Broker: u.BrokerType, Account: u.AccountID, Code: u.Code, Reason: u.Reason})
		rows = append(rows, []string{u.BrokerType, u.AccountID, "", u.Code, string(u.Reason)})
	}
	return s.show(views, rows...)
}
