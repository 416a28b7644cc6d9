package kmssim

import (
	"cmp"
	"errors"
	"fmt"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/latchkey/latchkey/events/secret"
)

const account = "111122223333"

// Options configure a KMS. Dir, AccessKeyID and SecretAccessKey are required.
type Options struct {
	Dir    string // folder of the key files, of one KMS at a time; created if missing
	Region string // part of every ARN; "us-east-1" if empty; a folder of keys belongs to one for good
	// AccessKeyID and SecretAccessKey are the credentials with which requests must be signed.
	AccessKeyID     string
	SecretAccessKey secret.Text
}

// KMS is the simulated service of one account in one Region. It serves HTTP and is safe for
// concurrent use.
type KMS struct {
	region      string
	credentials aws.Credentials
	keys        *keyring
	faults      *Faults
	sessions    sync.Map // session by access key id
}

// Open opens the service with the keys in opts.Dir. It fails if a key file is damaged or
// belongs to another Region.
func Open(opts Options) (*KMS, error) {
	if opts.Dir == "" {
		return nil, errors.New("simulated KMS: no folder for the keys")
	}
	if opts.AccessKeyID == "" || opts.SecretAccessKey.Empty() {
		return nil, errors.New("simulated KMS: no access key")
	}
	opts.Region = cmp.Or(opts.Region, "us-east-1")
	keys, err := openKeyring(opts.Dir, opts.Region)
	if err != nil {
		return nil, fmt.Errorf("simulated KMS: %w", err)
	}
	own := aws.Credentials{AccessKeyID: opts.AccessKeyID, SecretAccessKey: opts.SecretAccessKey.Reveal()}
	return &KMS{region: opts.Region, credentials: own, keys: keys, faults: newFaults()}, nil
}

// CreateKey returns the ARN of the key that alias ("alias/...") names, and makes both if
// they don't exist.
func (k *KMS) CreateKey(alias string) (arn string, err error) {
	key, err := k.keys.ensure(alias)
	if err != nil {
		return "", fmt.Errorf("simulated KMS: creating the key of %q: %w", alias, err)
	}
	return key.ARN, nil
}

// Replicate puts a replica of the multi-Region key that ref names into another Region: a key
// with the same id and material. It returns the replica's ARN.
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

// Config is what an SDK client needs to reach the service at endpoint, the URL of k.
func (k *KMS) Config(endpoint string) aws.Config {
	return aws.Config{
		Region:       k.region,
		BaseEndpoint: aws.String(endpoint),
		Credentials:  credentials.StaticCredentialsProvider{Value: k.credentials},
	}
}

func (k *KMS) Faults() *Faults { return k.faults }

// Calls returns how many requests for operation ("GenerateDataKey") have come; a client's
// retries count.
func (k *KMS) Calls(operation string) int { return k.faults.count(operation) }
