package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/latchkey/latchkey/config"
)

// ErrNoRegion: nothing says in which AWS Region the KMS key is.
var ErrNoRegion = errors.New("no AWS Region is known: set kms.region (LATCHKEY_KMS_REGION) or AWS_REGION")

// KMS returns a client with the AWS SDK's default credentials and adaptive retries. The
// timeout bounds each HTTP request, also those for credentials: the SDK shares one of
// these among callers, and continues it when their contexts end. Calls without credentials
// fail with a [*CredentialsError].
func KMS(ctx context.Context, cfg config.KMS) (*kms.Client, error) {
	bounded := awshttp.NewBuildableClient().WithTimeout(cfg.Timeout)
	loaded, err := awsconfig.LoadDefaultConfig(ctx,
		awsconfig.WithRegion(cfg.Region), awsconfig.WithRetryMode(aws.RetryModeAdaptive), awsconfig.WithHTTPClient(bounded),
		// The SDK requests container credentials with another client.
		awsconfig.WithEndpointCredentialOptions(func(o *endpointcreds.Options) { o.HTTPClient = bounded }))
	var noProfile awsconfig.SharedConfigProfileNotExistError
	if errors.As(err, &noProfile) {
		return nil, &CredentialsError{"the profile that AWS_PROFILE names is in neither of the AWS SDK's files (AWS_SHARED_CREDENTIALS_FILE, AWS_CONFIG_FILE)", err}
	}
	if err != nil {
		return nil, fmt.Errorf("loading the AWS configuration: %w", err)
	}
	if key, err := arn.Parse(cfg.KeyID); err == nil && loaded.Region == "" {
		loaded.Region = key.Region
	}
	if loaded.Region == "" {
		return nil, ErrNoRegion
	}
	return kms.NewFromConfig(loaded, func(o *kms.Options) {
		o.Credentials = credentialsOf{o.Credentials}
		if cfg.Endpoint != "" {
			o.BaseEndpoint = aws.String(cfg.Endpoint)
		}
	}), nil
}

// CredentialsError: the AWS SDK gets no credentials, so that KMS was not called.
type CredentialsError struct {
	// Do says what to set, or what to look at.
	Do  string
	err error
}

func (e *CredentialsError) Error() string {
	return fmt.Sprintf("the AWS SDK gets no credentials: %s: %v", e.Do, e.err)
}

func (e *CredentialsError) Unwrap() error { return e.err }

// credentialsOf has a provider's errors say what they are about.
type credentialsOf struct{ aws.CredentialsProvider }

func (c credentialsOf) Retrieve(ctx context.Context) (aws.Credentials, error) {
	if c.CredentialsProvider == nil {
		return aws.Credentials{}, &CredentialsError{nothingSet, errors.New("no provider")}
	}
	found, err := c.CredentialsProvider.Retrieve(ctx)
	if err != nil && ctx.Err() == nil || errors.Is(err, context.DeadlineExceeded) {
		err = &CredentialsError{c.advice(), err}
	}
	return found, err
}

const nothingSet = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the pod a role (IRSA: AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE; Pod Identity) " +
	"or the instance one; nothing of that is set, and the instance's metadata service (IMDS) gives none"

// advice says what to do, by where the SDK looked. It asks the instance where nothing else
// is set.
func (c credentialsOf) advice() string {
	source, _ := c.CredentialsProvider.(aws.CredentialProviderSource)
	if source == nil {
		return nothingSet
	}
	from := func(those ...aws.CredentialSource) bool {
		return slices.ContainsFunc(source.ProviderSources(), func(s aws.CredentialSource) bool { return slices.Contains(those, s) })
	}
	switch {
	case from(aws.CredentialSourceEnvVarsSTSWebIDToken, aws.CredentialSourceProfileSTSWebIDToken, aws.CredentialSourceSTSAssumeRoleWebID):
		return "look at AWS_ROLE_ARN, AWS_WEB_IDENTITY_TOKEN_FILE, the role's trust policy and the way to STS (IRSA)"
	case from(aws.CredentialSourceSTSAssumeRole):
		return "look at the role that the profile assumes, its trust policy and the way to STS"
	case from(aws.CredentialSourceHTTP):
		return "look at what answers at AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI (ECS, EKS Pod Identity)"
	case from(aws.CredentialSourceIMDS):
		return nothingSet
	}
	return "look at the profile of the AWS SDK (AWS_PROFILE, AWS_SHARED_CREDENTIALS_FILE, AWS_CONFIG_FILE)"
}
