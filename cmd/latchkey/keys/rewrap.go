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
type Rewrap struct {
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
	all, err := allKeys(ctx, r.Store)
	if err != nil {
		return report, err
	}
	todo := slices.DeleteFunc(slices.Clone(all), func(key envelope.WrappedKey) bool { return !r.All && sameKey(key.KEK, to) })
	report.Already = len(all) - len(todo)
	r.Progress.Total(len(todo))
	for _, key := range todo {
		if err := r.Limit.Wait(ctx); err != nil {
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
		r.Progress.Step()
	}
	return report, nil
}

func (r *Rewrap) rewrap(ctx context.Context, key envelope.WrappedKey, to string) error {
	out, err := r.KMS.ReEncrypt(ctx, &kms.ReEncryptInput{
		CiphertextBlob:               key.Wrapped,
		SourceKeyId:                  aws.String(envelope.RegionalARN(key.KEK, r.Region)),
		SourceEncryptionContext:      envelope.KMSContext(key.ID),
		DestinationKeyId:             aws.String(to),
		DestinationEncryptionContext: envelope.KMSContext(key.ID),
	})
	if err != nil {
		return fmt.Errorf("rewrapping data key %s: %w", key.ID, err)
	}
	return r.Store.Rewrap(ctx, key, out.CiphertextBlob, aws.ToString(out.KeyId))
}

// target returns the ARN of the KMS key that is to wrap the data keys.
func (r *Rewrap) target(ctx context.Context) (string, error) {
	if parsed, err := arn.Parse(r.To); err == nil && strings.HasPrefix(parsed.Resource, "key/") {
		return r.To, nil
	}
	out, err := r.KMS.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: aws.String(r.To)})
	if err != nil {
		return "", fmt.Errorf("finding the KMS key %s: %w", r.To, err)
	}
	return aws.ToString(out.KeyMetadata.Arn), nil
}

// sameKey reports whether two ARNs name the same key, or replicas of it in two Regions.
func sameKey(a, b string) bool {
	return envelope.RegionalARN(a, "any") == envelope.RegionalARN(b, "any")
}
