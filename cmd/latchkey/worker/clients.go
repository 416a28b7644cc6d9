package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

// Connect connects to NATS as configured, and reconnects after outages for ever, also
// while the servers refuse the credentials: they may accept these later, or the next
// ones. It reads credentials in files again for each attempt, and restores
// subscriptions that the servers end. More options override its own.
//
// After some errors the client library closes a connection for good, for example after
// a message larger than the server accepts; see nats.ClosedHandler.
func Connect(cfg config.NATS, name string, log *zap.Logger, more ...nats.Option) (*nats.Conn, error) {
	subscriptions := subscriptions{changes: cfg.Subjects().Changed(""), refused: map[string]bool{}, told: map[string]*rate.Sometimes{}}
	opts := []nats.Option{
		nats.Name("latchkey " + name),
		nats.CustomInboxPrefix(cfg.InboxPrefix),
		nats.Timeout(cfg.ConnectTimeout),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("NATS connection lost; reconnecting", zap.Error(err))
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info("NATS connection restored", zap.String("server", nc.ConnectedUrlRedacted()))
		}),
		nats.ErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
			about := err.Error()
			fields := []zap.Field{zap.String("error", withoutUser(cfg.Subjects(), about))}
			if sub != nil {
				about += " " + sub.Subject
				fields = append(fields, zap.String("subject", withoutUser(cfg.Subjects(), sub.Subject)))
			}
			subscriptions.seldom(about, func() { log.Error("NATS reports an error", fields...) })
			subscriptions.onError(nc, err)
		}),
	}
	switch {
	case cfg.CredsFile != "":
		opts = append(opts, nats.UserCredentials(cfg.CredsFile))
	case !cfg.NKeySeed.Empty():
		pair, err := nkeys.FromSeed([]byte(cfg.NKeySeed.Reveal()))
		if err != nil {
			return nil, fmt.Errorf("nats.nkey_seed is not a seed")
		}
		public, err := pair.PublicKey()
		if err != nil {
			return nil, fmt.Errorf("nats.nkey_seed is not a user's seed")
		}
		opts = append(opts, nats.Nkey(public, pair.Sign))
	case !cfg.Token.Empty():
		token := current("nats.token", cfg.Token, log)
		opts = append(opts, nats.TokenHandler(func() string { return token().Reveal() }))
	case cfg.Username != "":
		password := current("nats.password", cfg.Password, log)
		opts = append(opts, nats.UserInfoHandler(func() (string, string) { return cfg.Username, password().Reveal() }))
	}
	if cfg.CAFile != "" {
		opts = append(opts, nats.RootCAs(cfg.CAFile))
	}
	if cfg.CertFile != "" {
		opts = append(opts, nats.ClientCert(cfg.CertFile, cfg.KeyFile))
	}
	nc, err := nats.Connect(cfg.URL, append(opts, more...)...)
	if err != nil {
		return nil, connectError(cfg, err)
	}
	return nc, nil
}

// withoutUser replaces the user in a subject for the changes of one: a log names no users.
func withoutUser(subjects events.Subjects, text string) string {
	begin, rest, found := strings.Cut(text, subjects.Changed(""))
	if !found {
		return text
	}
	user := strings.IndexFunc(rest, func(r rune) bool { return r == '"' || r == ' ' })
	if user < 0 {
		user = len(rest)
	}
	return begin + subjects.Changed("") + "*" + rest[user:]
}

const (
	// requestTimeout bounds one request to JetStream, and the acknowledgement of one
	// message that was published asynchronously.
	requestTimeout = 5 * time.Second
	// maxPending bounds the messages that await their acknowledgement.
	maxPending = 4096
)

// JetStream returns JetStream on a connection. Its requests have a timeout even if the
// caller's context has none.
func JetStream(nc *nats.Conn) (jetstream.JetStream, error) { return jetStream(nc, requestTimeout) }

func jetStream(nc *nats.Conn, timeout time.Duration) (jetstream.JetStream, error) {
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(timeout),
		jetstream.WithPublishAsyncTimeout(timeout), jetstream.WithPublishAsyncMaxPending(maxPending))
	if err != nil {
		return nil, fmt.Errorf("setting up JetStream: %w", err)
	}
	return js, nil
}

// current returns a function that reads a secret from its file. Without a file, or if
// it can't be read, the function returns the secret that was read last.
func current(key string, loaded secret.Text, log *zap.Logger) func() secret.Text {
	var mu sync.Mutex
	last := loaded
	return func() secret.Text {
		mu.Lock()
		defer mu.Unlock()
		text, err := config.SecretFile(key, os.Environ())
		switch {
		case err == nil:
			last = text
		case !errors.Is(err, config.ErrNoFile):
			log.Warn("a secret can't be read from its file; the last one is used", zap.String("key", key), zap.Error(err))
		}
		return last
	}
}

// OpenStore opens the database that the configuration names.
func OpenStore(ctx context.Context, cfg config.MongoDB) (*store.Store, error) {
	return store.Open(ctx, store.Options{URI: cfg.URI, Database: cfg.Database, Timeout: cfg.Timeout, AppName: "latchkey"})
}

// Envelope returns envelope encryption under the configured KMS key, with the data keys
// in keys. onKMS, if set, is called after every call to KMS.
func Envelope(ctx context.Context, cfg config.Config, keys envelope.KeyStore, now func() time.Time, onKMS func(operation string, err error)) (*envelope.Envelope, error) {
	client, err := KMS(ctx, cfg.KMS)
	if err != nil {
		return nil, err
	}
	return envelope.New(envelope.Options{
		KMS: tracedKMS{client}, Store: keys, KeyID: cfg.KMS.KeyID, Region: client.Options().Region, Timeout: cfg.KMS.Timeout,
		PerUser: cfg.DataKeys.PerUser, Outage: cfg.DataKeys.Outage,
		MaxAge: cfg.DataKeys.MaxAge, MaxSets: cfg.DataKeys.MaxSets, MaxBytes: cfg.DataKeys.MaxBytes,
		CacheSize: cfg.DataKeys.CacheSize, CacheAge: cfg.DataKeys.CacheAge, Now: now, OnKMS: onKMS,
	})
}
