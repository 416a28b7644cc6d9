package homemade

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/micro"
)

// Request is the body of a request for tokens, and Reply that of its answer.
type Request struct {
	UserID string `json:"userId"`
}

type Reply struct {
	AccessTokens []AccessToken `json:"accessTokens"`
}

type AccessToken struct {
	BrokerType  string    `json:"brokerType"`
	AccountID   string    `json:"accountId"`
	AccessToken string    `json:"accessToken"`
	ExpiresAt   time.Time `json:"expiresAt"`
}

func (s *Service) get(ctx context.Context, r micro.Request) {
	var q Request
	if json.Unmarshal(r.Data(), &q) != nil {
		_ = r.Error("400", "no JSON", nil)
		return
	}
	// Errors of answers below are those of a closed connection.
	rows, err := s.reads.Query(ctx, `SELECT broker, account, access, expires_at FROM tokens WHERE user_id = $1`, q.UserID)
	if err != nil {
		_ = r.Error("500", "the database is away", nil)
		return
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (a AccessToken, err error) {
		var sealed []byte
		if err := row.Scan(&a.BrokerType, &a.AccountID, &sealed, &a.ExpiresAt); err != nil {
			return a, err
		}
		a.AccessToken, err = s.decrypt(Token{User: q.UserID, Broker: a.BrokerType, Account: a.AccountID}, sealed)
		return a, err
	})
	if err != nil {
		_ = r.Error("500", "the tokens can't be read", nil)
		return
	}
	_ = r.RespondJSON(Reply{AccessTokens: all})
}
