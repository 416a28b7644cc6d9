package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

// Connect connects to NATS as the configuration says, and stays connected
// through outages. More options override those.
func Connect(cfg config.NATS, name string, log *zap.Logger, more ...nats.Option) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name("latchkey " + name),
		nats.CustomInboxPrefix(cfg.InboxPrefix),
		nats.Timeout(cfg.ConnectTimeout),
		nats.MaxReconnects(-1),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("NATS connection lost; reconnecting", zap.Error(err))
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info("NATS connection restored", zap.String("server", nc.ConnectedUrlRedacted()))
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			fields := []zap.Field{zap.Error(err)}
			if sub != nil {
				fields = append(fields, zap.String("subject", sub.Subject))
			}
			log.Error("NATS reports an error", fields...)
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
		opts = append(opts, nats.Token(cfg.Token.Reveal()))
	case cfg.Username != "":
		opts = append(opts, nats.UserInfo(cfg.Username, cfg.Password.Reveal()))
	}
	if cfg.CAFile != "" {
		opts = append(opts, nats.RootCAs(cfg.CAFile))
	}
	if cfg.CertFile != "" {
		opts = append(opts, nats.ClientCert(cfg.CertFile, cfg.KeyFile))
	}
	nc, err := nats.Connect(cfg.URL, append(opts, more...)...)
	if err != nil {
		return nil, fmt.Errorf("connecting to NATS (nats.url): %w", err)
	}
	return nc, nil
}

// KMS returns a client whose credentials come from where the AWS SDK looks for
// them, with the SDK's adaptive retries.
func KMS(ctx context.Context, cfg config.KMS) (*kms.Client, error) {
	loaded, err := awsconfig.LoadDefaultConfig(ctx,
		awsconfig.WithRegion(cfg.Region), awsconfig.WithRetryMode(aws.RetryModeAdaptive))
	if err != nil {
		return nil, fmt.Errorf("loading the AWS configuration: %w", err)
	}
	return kms.NewFromConfig(loaded, func(o *kms.Options) {
		if cfg.Endpoint != "" {
			o.BaseEndpoint = aws.String(cfg.Endpoint)
		}
	}), nil
}

// OpenStore opens the database that the configuration names.
func OpenStore(ctx context.Context, cfg config.MongoDB) (*store.Store, error) {
	return store.Open(ctx, store.Options{URI: cfg.URI, Database: cfg.Database, Timeout: cfg.Timeout, AppName: "latchkey"})
}

// Envelope returns what seals and opens under the configured KMS key, with the
// data keys in keys. onKMS, if set, is told of every call to KMS.
func Envelope(ctx context.Context, cfg config.Config, keys envelope.KeyStore, now func() time.Time, onKMS func(operation string, err error)) (*envelope.Envelope, error) {
	client, err := KMS(ctx, cfg.KMS)
	if err != nil {
		return nil, err
	}
	return envelope.New(envelope.Options{
		KMS: tracedKMS{client}, Store: keys, KeyID: cfg.KMS.KeyID, Region: client.Options().Region, Timeout: cfg.KMS.Timeout,
		Shards: cfg.DataKeys.Shards, PerUser: cfg.DataKeys.PerUser, Outage: cfg.DataKeys.Outage,
		MaxAge: cfg.DataKeys.MaxAge, MaxSets: cfg.DataKeys.MaxSets, MaxBytes: cfg.DataKeys.MaxBytes,
		CacheSize: cfg.DataKeys.CacheSize, CacheAge: cfg.DataKeys.CacheAge, Now: now, OnKMS: onKMS,
	}), nil
}
