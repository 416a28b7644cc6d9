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
	// SealsUntil is when the last sealer under the key is given out. Zero in
	// keys of before this was recorded.
	SealsUntil time.Time `bson:"sealsUntil,omitempty"`
	// Scope is ScopeOf the user to whom the key belongs. Empty: users share it.
	Scope string `bson:"scope,omitempty"`
}

// KeyStore keeps wrapped data keys.
type KeyStore interface {
	// PutKey stores a new key durably; it is used for sealing only after that.
	PutKey(ctx context.Context, key WrappedKey) error
	// Key returns a stored key, or an error that wraps ErrUnknownKey.
	Key(ctx context.Context, id string) (WrappedKey, error)
	// SealingKey returns the newest key of a scope that was created at since or
	// later and seals until after now, or an error that wraps ErrUnknownKey.
	SealingKey(ctx context.Context, scope string, since, now time.Time) (WrappedKey, error)
}

// KMS is the part of the KMS client that envelope encryption needs.
type KMS interface {
	GenerateDataKey(ctx context.Context, in *kms.GenerateDataKeyInput, opts ...func(*kms.Options)) (*kms.GenerateDataKeyOutput, error)
	Decrypt(ctx context.Context, in *kms.DecryptInput, opts ...func(*kms.Options)) (*kms.DecryptOutput, error)
}

var (
	// ErrUnknownKey: the data key of a blob is not stored. It does not pass by
	// itself: keys were deleted, or the database is another one.
	ErrUnknownKey = errors.New("unknown data key")
	// ErrWrappedKey: the data key of a blob is stored, but KMS does not unwrap
	// it. It does not pass by itself, yet says nothing about the blob, which
	// opens again once the right KMS key or the true wrapped key is back.
	ErrWrappedKey = errors.New("the stored data key does not unwrap: another KMS key, or changed from outside")
	// ErrKMS: a data key could not be had from KMS now. The caller keeps its
	// message and tries again.
	ErrKMS = errors.New("data key not available from KMS")
)

// KMSContext is the encryption context under which KMS wraps the data key with
// this id. A policy can demand the "app" pair; the id keeps one wrapped key
// from being passed off as another.
func KMSContext(id string) map[string]string {
	return map[string]string{"app": "latchkey", "data-key": id}
}
