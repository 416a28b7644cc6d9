package kmssim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/latchkey/latchkey/events/secret"
)

// account is part of every ARN.
const account = "111122223333"

// Options says what service to simulate. Dir, AccessKeyID and SecretAccessKey
// are required.
type Options struct {
	// Dir is the folder of the key files; it is created if it is missing. One
	// KMS at a time may use it.
	Dir string
	// Region is part of every ARN; "us-east-1" if empty. A folder of keys belongs
	// to one for good.
	Region string
	// AccessKeyID and SecretAccessKey are the credentials requests must be
	// signed with.
	AccessKeyID     string
	SecretAccessKey secret.Text
}

// KMS is the simulated service of one account in one Region. It serves HTTP
// and is safe for concurrent use.
type KMS struct {
	region      string
	credentials aws.Credentials
	keys        *keyring
	faults      *Faults
	sessions    sessions
}

// Open starts the service with the keys found in opts.Dir. It fails if options
// are missing, if the folder cannot be read or made, or if a key file is damaged
// or belongs to another Region.
func Open(opts Options) (*KMS, error) {
	if opts.Dir == "" {
		return nil, errors.New("simulated KMS: no folder for the keys")
	}
	if opts.AccessKeyID == "" || opts.SecretAccessKey.Empty() {
		return nil, errors.New("simulated KMS: no access key")
	}
	if opts.Region == "" {
		opts.Region = "us-east-1"
	}
	keys, err := openKeyring(opts.Dir, opts.Region)
	if err != nil {
		return nil, fmt.Errorf("simulated KMS: %w", err)
	}
	return &KMS{
		region: opts.Region,
		credentials: aws.Credentials{
			AccessKeyID:     opts.AccessKeyID,
			SecretAccessKey: opts.SecretAccessKey.Reveal(),
		},
		keys:   keys,
		faults: newFaults(),
	}, nil
}

// CreateKey returns the ARN of the key that alias ("alias/...") names, and makes
// key and alias if there is none, so that a caller may repeat it at every start.
func (k *KMS) CreateKey(alias string) (arn string, err error) {
	key, err := k.keys.ensure(alias)
	if err != nil {
		return "", fmt.Errorf("simulated KMS: creating the key of %q: %w", alias, err)
	}
	return key.ARN, nil
}

// Replicate puts a replica of the multi-Region key that ref names into the
// service of another Region: a key with the same id and material, of which each
// opens what the other has sealed. It returns the replica's ARN.
func (k *KMS) Replicate(ref string, to *KMS) (string, error) {
	key, err := k.keys.resolve(ref)
	if err != nil {
		return "", fmt.Errorf("simulated KMS: replicating a key: %w", err)
	}
	if !key.MultiRegion || to.region == k.region {
		return "", fmt.Errorf("simulated KMS: %s can't be replicated to %s", key.ARN, to.region)
	}
	replica := *key
	replica.ARN, replica.Aliases = to.keys.arn("key/"+key.ID), nil
	if err := to.keys.add(&replica); err != nil {
		return "", fmt.Errorf("simulated KMS: replicating %s: %w", key.ARN, err)
	}
	return replica.ARN, nil
}

// Config is what an SDK client needs to reach the service at endpoint, the URL
// under which k is served.
func (k *KMS) Config(endpoint string) aws.Config {
	return aws.Config{
		Region:       k.region,
		BaseEndpoint: aws.String(endpoint),
		Credentials: credentials.NewStaticCredentialsProvider(
			k.credentials.AccessKeyID, k.credentials.SecretAccessKey, ""),
	}
}

// Faults controls how the service misbehaves.
func (k *KMS) Faults() *Faults { return k.faults }

// Calls tells how many requests for operation ("GenerateDataKey") have arrived,
// whatever became of them; a client's retries count.
func (k *KMS) Calls(operation string) int { return k.faults.count(operation) }

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
