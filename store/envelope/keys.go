package envelope

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// WrappedKey is the stored form of a data key: only KMS can unwrap it.
type WrappedKey struct {
	ID string `bson:"_id"`
	// Wrapped is KMS's ciphertext of the key.
	Wrapped []byte `bson:"wrapped"`
	// KEK is the ARN of the KMS key that wraps it.
	KEK       string    `bson:"kek"`
	CreatedAt time.Time `bson:"createdAt"`
	// SealsUntil is until when Sealer returns sealers with the key. Zero: an early
	// release wrote it.
	SealsUntil time.Time `bson:"sealsUntil,omitempty"`
	// Scope is ScopeOf the user who has the key alone. Empty: users share it.
	Scope string `bson:"scope,omitempty"`
}

// KeyStore keeps wrapped data keys.
type KeyStore interface {
	// PutKey stores a new key durably, before it seals anything.
	PutKey(ctx context.Context, key WrappedKey) error
	// Key returns a stored key, or an error that wraps ErrUnknownKey.
	Key(ctx context.Context, id string) (WrappedKey, error)
	// SealingKey returns the newest key of a scope that was created at since or later
	// and still seals at now, or an error that wraps ErrUnknownKey.
	SealingKey(ctx context.Context, scope string, since, now time.Time) (WrappedKey, error)
}

// KMS is the part of the KMS client that envelope encryption needs.
type KMS interface {
	GenerateDataKey(ctx context.Context, in *kms.GenerateDataKeyInput, opts ...func(*kms.Options)) (*kms.GenerateDataKeyOutput, error)
	Decrypt(ctx context.Context, in *kms.DecryptInput, opts ...func(*kms.Options)) (*kms.DecryptOutput, error)
}

var (
	// ErrUnknownKey: the data key of a blob is not stored. Retrying does not help:
	// the key was deleted, or this is another database.
	ErrUnknownKey = errors.New("unknown data key")
	// ErrWrappedKey: KMS does not unwrap the stored data key of a blob. Retrying does
	// not help, but the blob opens once the KMS key or the wrapped key is restored.
	ErrWrappedKey = errors.New("the stored data key does not unwrap: another KMS key, or changed from outside")
	// ErrKMS: KMS does not provide a data key now. Retry later.
	ErrKMS = errors.New("data key not available from KMS")
)

// KMSContext is the encryption context under which KMS wraps a data key. A key policy can
// demand the "app" pair; the id keeps one wrapped key from posing as another.
func KMSContext(id string) map[string]string {
	return map[string]string{"app": "latchkey", "data-key": id}
}
