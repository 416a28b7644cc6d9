package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"golang.org/x/time/rate"

	"github.com/latchkey/latchkey/events/options"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

// KMS is the part of the KMS client that Rewrap needs.
type KMS interface {
	ReEncrypt(ctx context.Context, in *kms.ReEncryptInput, opts ...func(*kms.Options)) (*kms.ReEncryptOutput, error)
	DescribeKey(ctx context.Context, in *kms.DescribeKeyInput, opts ...func(*kms.Options)) (*kms.DescribeKeyOutput, error)
}

// Rewrap makes KMS wrap data keys under another KMS key. Plain data keys never leave
// KMS. Workers may run meanwhile.
type Rewrap struct{ opts RewrapOptions }

// RewrapOptions for NewRewrap. Region and All may be zero.
type RewrapOptions struct {
	Store *store.Store
	KMS   KMS
	// Region is that of the KMS client.
	Region string
	// To names that KMS key.
	To string
	// All: also data keys that it wraps already.
	All      bool
	Limit    *rate.Limiter
	Progress Progress
}

// NewRewrap returns a Rewrap that Run carries out.
func NewRewrap(o RewrapOptions) (*Rewrap, error) {
	if err := options.Require("a rewrapping of data keys", o, "Store", "KMS", "To", "Limit", "Progress"); err != nil {
		return nil, err
	}
	return &Rewrap{o}, nil
}

// RewrapReport says what Rewrap did.
type RewrapReport struct {
	// To is the ARN of the KMS key.
	To        string `json:"to"`
	Rewrapped int    `json:"rewrapped"`
	// Already counts data keys that were under the KMS key before.
	Already int `json:"already"`
	// Changed counts data keys that were changed or deleted meanwhile.
	Changed int     `json:"changed"`
	Failed  []Fault `json:"failed"`
}

// Fault is a data key or a grant that could not be processed.
type Fault struct {
	ID    string `json:"id"`
	Error string `json:"error"`
}

// Run rewraps. If it fails or is interrupted, another run continues with the rest.
func (r *Rewrap) Run(ctx context.Context) (RewrapReport, error) {
	report := RewrapReport{Failed: []Fault{}}
	to, err := r.target(ctx)
	if err != nil {
		return report, err
	}
	report.To = to
	all, err := allKeys(ctx, r.opts.Store)
	if err != nil {
		return report, err
	}
	todo := slices.DeleteFunc(slices.Clone(all), func(key envelope.WrappedKey) bool { return !r.opts.All && sameKey(key.KEK, to) })
	report.Already = len(all) - len(todo)
	r.opts.Progress.Total(len(todo))
	for _, key := range todo {
		if err := r.opts.Limit.Wait(ctx); err != nil {
			return report, err
		}
		switch err := r.rewrap(ctx, key, to); {
		case err == nil:
			report.Rewrapped++
		case errors.Is(err, store.ErrConflict):
			report.Changed++
		case envelope.Refused(err), envelope.AboutCiphertext(err):
			report.Failed = append(report.Failed, Fault{key.ID, err.Error()})
		default: // KMS or MongoDB is away
			return report, err
		}
		r.opts.Progress.Step()
	}
	return report, nil
}

func (r *Rewrap) rewrap(ctx context.Context, key envelope.WrappedKey, to string) error {
	out, err := r.opts.KMS.ReEncrypt(ctx, &kms.ReEncryptInput{
		CiphertextBlob:               key.Wrapped,
		SourceKeyId:                  aws.String(envelope.RegionalARN(key.KEK, r.opts.Region)),
		SourceEncryptionContext:      envelope.KMSContext(key.ID),
		DestinationKeyId:             aws.String(to),
		DestinationEncryptionContext: envelope.KMSContext(key.ID),
	})
	if err != nil {
		return fmt.Errorf("rewrapping data key %s: %w", key.ID, err)
	}
	return r.opts.Store.Rewrap(ctx, key, out.CiphertextBlob, aws.ToString(out.KeyId))
}

// target returns the ARN of the KMS key that is to wrap the data keys.
func (r *Rewrap) target(ctx context.Context) (string, error) {
	if parsed, err := arn.Parse(r.opts.To); err == nil && strings.HasPrefix(parsed.Resource, "key/") {
		return r.opts.To, nil
	}
	out, err := r.opts.KMS.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: aws.String(r.opts.To)})
	if err != nil {
		return "", fmt.Errorf("finding the KMS key %s: %w", r.opts.To, err)
	}
	return aws.ToString(out.KeyMetadata.Arn), nil
}

// sameKey reports whether two ARNs name the same key, or replicas of it in two Regions.
func sameKey(a, b string) bool {
	return envelope.RegionalARN(a, "any") == envelope.RegionalARN(b, "any")
}
