package doctor

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/google/uuid"

	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
)

const doKMS = "check kms.key_id, kms.region, that the key is enabled, and kms:GenerateDataKey and kms:Decrypt for this role; a condition must admit the encryption context app=latchkey"

const doCredentials = "check where the AWS SDK gets its credentials (role, STS, web identity, instance or container endpoint); workers that run continue for data_keys.outage"

// kms makes and opens a data key as a worker would, under an id that is never stored.
func (d *doctor) kms(ctx context.Context) Result {
	client, err := worker.KMS(ctx, d.cfg.KMS)
	if err != nil {
		return failed(kmsCure(err), "%v", err)
	}
	if _, err := client.Options().Credentials.Retrieve(ctx); err != nil {
		return failed(kmsCure(err), "getting credentials for KMS: %v", err)
	}
	name := envelope.KMSContext("doctor-" + uuid.NewString())
	began := d.now()
	made, err := client.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: &d.cfg.KMS.KeyID, KeySpec: types.DataKeySpecAes256, EncryptionContext: name})
	if err != nil {
		return failed(kmsCure(err), "making a data key: %v", err)
	}
	defer clear(made.Plaintext)
	if at, found := awsmiddleware.GetServerTime(made.ResultMetadata); found {
		d.timed("kms", began, at, time.Second)
	}
	took := d.now().Sub(began)
	began = d.now()
	opened, err := client.Decrypt(ctx, &kms.DecryptInput{KeyId: made.KeyId, CiphertextBlob: made.CiphertextBlob, EncryptionContext: name})
	if err != nil {
		return failed(kmsCure(err), "opening a data key: %v", err)
	}
	defer clear(opened.Plaintext)
	if subtle.ConstantTimeCompare(made.Plaintext, opened.Plaintext) != 1 {
		return failed("see what answers at kms.endpoint", "KMS opened another data key than it made")
	}
	return ok("key %s; GenerateDataKey took %v, Decrypt %v", aws.ToString(made.KeyId), took.Round(time.Millisecond), d.now().Sub(began).Round(time.Millisecond))
}

// kmsCure says what to do about an error of KMS.
func kmsCure(err error) string {
	var credentials *worker.CredentialsError
	switch {
	case errors.As(err, &credentials):
		return doCredentials
	case errors.Is(err, worker.ErrNoRegion):
		return "set kms.region, or AWS_REGION"
	case envelope.Refused(err):
		return doKMS
	case envelope.AboutCiphertext(err):
		return "restore data_keys as it was: the stored key is not one that KMS wrapped with this KMS key"
	}
	return "KMS can't be reached, fails, or does not accept the credentials: check the network, kms.endpoint, the credentials, the clock, and the AWS status; workers that run continue for data_keys.outage"
}

// sample is how many of the oldest and how many of the newest data keys are opened.
const sample = 3

// dataKeys opens a few of the stored data keys with KMS.
func (d *doctor) dataKeys(ctx context.Context, db *store.Store) Result {
	client, err := worker.KMS(ctx, d.cfg.KMS)
	if err != nil {
		return failed(kmsCure(err), "%v", err)
	}
	picked, err := db.SampleKeys(ctx, sample)
	if err != nil {
		return failed("look at the check mongodb", "%v", err)
	}
	if len(picked) == 0 {
		return ok("there are none yet")
	}
	var bad []string
	var cure string
	for _, key := range picked {
		kek := envelope.RegionalARN(key.KEK, client.Options().Region)
		opened, err := client.Decrypt(ctx, &kms.DecryptInput{KeyId: &kek, CiphertextBlob: key.Wrapped, EncryptionContext: envelope.KMSContext(key.ID)})
		if err != nil {
			bad = append(bad, fmt.Sprintf("%s under %s: %v", key.ID, key.KEK, err))
			cure = kmsCure(err)
			continue
		}
		clear(opened.Plaintext)
	}
	if len(bad) > 0 {
		return failed(cure+"; what those sealed does not open", "%d of %d data keys don't open: %s", len(bad), len(picked), strings.Join(bad, "; "))
	}
	return ok("the %d oldest and newest that are stored open", len(picked))
}
