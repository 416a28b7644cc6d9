package kmssim

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/latchkey/latchkey/events/secret"
)

// Options says what service to simulate. Dir, AccessKeyID and SecretAccessKey
// are required.
type Options struct {
	// Dir is the folder of the key files; it is created if it is missing. One
	// KMS at a time may use it.
	Dir string
	// Region and Account are part of every ARN; "us-east-1" and
	// "111122223333" if empty. A folder of keys belongs to one pair for good.
	Region, Account string
	// AccessKeyID and SecretAccessKey are the credentials requests must be
	// signed with.
	AccessKeyID     string
	SecretAccessKey secret.Text
	// Clock dates keys and aliases; time.Now if nil.
	Clock func() time.Time
	// Sleep waits out a latency fault, or less if the request ends first; a
	// timer if nil.
	Sleep func(context.Context, time.Duration) error
	// Rand is the source of key material, nonces, ids and of the chance in
	// Faults.Share; crypto/rand if nil. It need not be safe for concurrent use.
	Rand io.Reader
}

// KMS is the simulated service of one account in one Region. It serves HTTP
// and is safe for concurrent use.
type KMS struct {
	region      string
	credentials aws.Credentials
	sleep       func(context.Context, time.Duration) error
	rand        io.Reader
	keys        *keyring
	faults      *Faults
	sessions    sessions
}

var accountPattern = regexp.MustCompile(`^[0-9]{12}$`)

// Open starts the service with the keys found in opts.Dir. It fails if options
// are missing, if the folder cannot be read or made, or if a key file is damaged
// or belongs to another Region or account.
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
	if opts.Account == "" {
		opts.Account = "111122223333"
	}
	if !accountPattern.MatchString(opts.Account) {
		return nil, fmt.Errorf("simulated KMS: account %q is not twelve digits", opts.Account)
	}
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	if opts.Sleep == nil {
		opts.Sleep = sleep
	}
	if opts.Rand == nil {
		opts.Rand = rand.Reader
	}
	random := &lockedReader{r: opts.Rand}

	keys, err := openKeyring(opts.Dir, opts.Region, opts.Account, opts.Clock, random)
	if err != nil {
		return nil, fmt.Errorf("simulated KMS: %w", err)
	}
	return &KMS{
		region: opts.Region,
		credentials: aws.Credentials{
			AccessKeyID:     opts.AccessKeyID,
			SecretAccessKey: opts.SecretAccessKey.Reveal(),
		},
		sleep:  opts.Sleep,
		rand:   random,
		keys:   keys,
		faults: &Faults{rand: random, calls: map[string]int{}},
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

type lockedReader struct {
	mu sync.Mutex
	r  io.Reader
}

func (l *lockedReader) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(p)
}
