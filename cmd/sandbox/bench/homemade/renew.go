package homemade

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/latchkey/latchkey/events/secret"
)

// renewAll renews what is due, each row in a transaction of its own, so that a crash leaves no more than the calls that
// are in progress.
func (s *Service) renewAll(ctx context.Context) {
	var calls errgroup.Group
	for range s.Calls {
		calls.Go(func() error {
			for more := true; more && ctx.Err() == nil; {
				var err error
				if more, err = s.renewOne(context.WithoutCancel(ctx)); err != nil {
					s.Failed(err)
				}
			}
			return nil
		})
	}
	_ = calls.Wait() // they have told
}

// renewOne renews one token, and reports whether there was one to renew.
func (s *Service) renewOne(ctx context.Context) (found bool, err error) {
	err = pgx.BeginFunc(ctx, s.cron, func(tx pgx.Tx) error {
		var t Token
		var sealed []byte
		err := tx.QueryRow(ctx, `SELECT user_id, broker, account, refresh FROM tokens WHERE due_at <= now() ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED`).
			Scan(&t.User, &t.Broker, &t.Account, &sealed)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("looking for what is due: %w", err)
		}
		found = true
		if err := s.present(ctx, &t, sealed); err != nil {
			s.Failed(err)
			_, err = tx.Exec(ctx, `UPDATE tokens SET due_at = $4 WHERE user_id = $1 AND broker = $2 AND account = $3`, t.User, t.Broker, t.Account, time.Now().Add(backoff))
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE tokens SET access = $4, refresh = $5, expires_at = $6, due_at = $7 WHERE user_id = $1 AND broker = $2 AND account = $3`,
			t.User, t.Broker, t.Account, s.encrypt(t, t.Access.Reveal()), s.encrypt(t, t.Refresh.Reveal()), t.ExpiresAt, t.DueAt)
		return err
	})
	return found, err
}

// share of the lifetime of an access token after which it is renewed.
const share = 0.8

// present presents a refresh token to Mesh, and puts what it answers into the row.
func (s *Service) present(ctx context.Context, t *Token, sealed []byte) error {
	refresh, err := s.decrypt(*t, sealed)
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]string{"type": t.Broker, "refreshToken": refresh})
	if err != nil {
		return fmt.Errorf("calling Mesh: %w", err)
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, s.MeshURL+"/api/v1/token/refresh", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("calling Mesh: %w", err)
	}
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("X-Client-Id", s.ClientID)
	q.Header.Set("X-Client-Secret", s.ClientSecret.Reveal())
	res, err := s.mesh.Do(q)
	if err != nil {
		return fmt.Errorf("calling Mesh: %w", err)
	}
	defer res.Body.Close()
	var answer struct {
		Content struct {
			Status              string
			BrokerAccountTokens []struct{ AccessToken, RefreshToken string }
			ExpiresInSeconds    int
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return errors.New("an answer of Mesh is not the JSON that is expected")
	}
	tokens := answer.Content.BrokerAccountTokens
	if res.StatusCode != http.StatusOK || answer.Content.Status != "succeeded" || len(tokens) != 1 || tokens[0].RefreshToken == "" {
		return fmt.Errorf("refused by Mesh, HTTP %d, status %q", res.StatusCode, answer.Content.Status)
	}
	lifetime := time.Duration(answer.Content.ExpiresInSeconds) * time.Second
	t.Access, t.Refresh = secret.New(tokens[0].AccessToken), secret.New(tokens[0].RefreshToken)
	t.ExpiresAt, t.DueAt = time.Now().Add(lifetime), time.Now().Add(time.Duration(share*float64(lifetime)))
	return nil
}
