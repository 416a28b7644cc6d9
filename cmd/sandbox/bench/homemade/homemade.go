// Package homemade is the service that a company would write in place of Latchkey: tokens in PostgreSQL, encrypted with
// one key, read by a SELECT for requests over NATS, renewed by a cron. Workers are measured beside it. It is tuned, and
// it locks the rows that it renews. It has no audit log, no events, and no account of what a crash leaves undone.
package homemade

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/latchkey/latchkey/events/pause"
	"github.com/latchkey/latchkey/events/secret"
)

// Options are all required.
type Options struct {
	PostgresURL, NATSURL string
	Prefix               string // of the subjects of requests: Prefix.get, and Prefix.echo, which answers with the request
	Key                  [32]byte
	MeshURL, ClientID    string
	ClientSecret         secret.Text
	Every                time.Duration // of the cron, whose times are multiples of it
	Calls                int           // of Mesh at once
	Failed               func(error)   // is told why a token was not renewed
}

// Token is a row.
type Token struct {
	User, Broker, Account string
	Access, Refresh       secret.Text
	ExpiresAt, DueAt      time.Time // of the access token; when to renew it
}

// binding is what an encrypted token can't be moved away from.
func (t Token) binding() []byte { return []byte(t.User + "\x00" + t.Broker + "\x00" + t.Account) }

type Service struct {
	Options
	seal        cipher.AEAD
	reads, cron *pgxpool.Pool // apart, so that no read waits for a renewal
	reading     chan struct{} // a slot for each read at once
	mesh        *http.Client
}

const (
	readers     = 16 // connections for reads; more make PostgreSQL slower on few cores
	callTimeout = 20 * time.Second
	backoff     = time.Minute // after a failure
)

const schema = `CREATE TABLE IF NOT EXISTS tokens (
	user_id text NOT NULL, broker text NOT NULL, account text NOT NULL, access bytea NOT NULL, refresh bytea NOT NULL,
	expires_at timestamptz NOT NULL, due_at timestamptz NOT NULL, PRIMARY KEY (user_id, broker, account));
CREATE INDEX IF NOT EXISTS due ON tokens (due_at)`

// Open connects to the database, and makes the table where there is none.
func Open(ctx context.Context, o Options) (*Service, error) {
	block, err := aes.NewCipher(o.Key[:])
	if err != nil {
		return nil, fmt.Errorf("using the key: %w", err)
	}
	s := &Service{Options: o, reading: make(chan struct{}, readers), mesh: &http.Client{
		Timeout: callTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: o.Calls},
	}}
	if s.seal, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		return nil, fmt.Errorf("using the key: %w", err)
	}
	if s.reads, err = connect(ctx, o.PostgresURL, readers); err != nil {
		return nil, err
	}
	if s.cron, err = connect(ctx, o.PostgresURL, o.Calls); err == nil {
		_, err = s.cron.Exec(ctx, schema)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("preparing PostgreSQL: %w", err)
	}
	return s, nil
}

func connect(ctx context.Context, url string, most int) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	config.MaxConns = int32(most)
	config.ConnConfig.RuntimeParams["plan_cache_mode"] = "auto" // the server's setting is for FerretDB
	return pgxpool.NewWithConfig(ctx, config)
}

func (s *Service) Close() {
	s.reads.Close()
	if s.cron != nil {
		s.cron.Close()
	}
}

// Add stores tokens.
func (s *Service) Add(ctx context.Context, tokens []Token) error {
	_, err := s.cron.CopyFrom(ctx, pgx.Identifier{"tokens"}, []string{"user_id", "broker", "account", "access", "refresh", "expires_at", "due_at"},
		pgx.CopyFromSlice(len(tokens), func(i int) ([]any, error) {
			t := tokens[i]
			return []any{t.User, t.Broker, t.Account, s.encrypt(t, t.Access.Reveal()), s.encrypt(t, t.Refresh.Reveal()), t.ExpiresAt, t.DueAt}, nil
		}))
	if err != nil {
		return fmt.Errorf("storing tokens: %w", err)
	}
	return nil
}

func (s *Service) encrypt(t Token, text string) []byte {
	return s.seal.Seal(nil, nil, []byte(text), t.binding())
}

func (s *Service) decrypt(t Token, sealed []byte) (string, error) {
	text, err := s.seal.Open(nil, nil, sealed, t.binding())
	if err != nil {
		return "", errors.New("a stored token can't be decrypted")
	}
	return string(text), nil
}

// Run answers requests and renews what is due until ctx ends. A renewal that has begun is finished.
func (s *Service) Run(ctx context.Context) error {
	nc, err := nats.Connect(s.NATSURL)
	if err != nil {
		return fmt.Errorf("connecting to NATS: %w", err)
	}
	defer nc.Close()
	service, err := micro.AddService(nc, micro.Config{Name: "homemade", Version: "1.0.0"})
	if err != nil {
		return fmt.Errorf("serving requests: %w", err)
	}
	err = errors.Join(
		service.AddEndpoint("get", micro.HandlerFunc(func(r micro.Request) {
			s.reading <- struct{}{}
			go func() {
				defer func() { <-s.reading }()
				s.get(ctx, r)
			}()
		}), micro.WithEndpointSubject(s.Prefix+".get")),
		service.AddEndpoint("echo", micro.HandlerFunc(func(r micro.Request) { _ = r.Respond(r.Data()) }), micro.WithEndpointSubject(s.Prefix+".echo")),
		nc.Flush(),
	)
	if err != nil {
		return fmt.Errorf("serving requests: %w", err)
	}
	for {
		now := time.Now()
		if pause.For(ctx, now.Truncate(s.Every).Add(s.Every).Sub(now)) != nil {
			return nil // stopped
		}
		s.renewAll(ctx)
	}
}
