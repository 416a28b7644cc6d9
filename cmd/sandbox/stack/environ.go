package stack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/latchkey/latchkey/config"
)

// identityToken is the token that the simulated STS exchanges for credentials.
const identityToken = "sandbox-identity-token"

// Environ is the environment that a worker needs to reach the stack: all of its
// configuration without a default, and credentials for the AWS SDK.
func (s *Stack) Environ() []string {
	return []string{
		"LATCHKEY_NATS_URL=" + s.natsURL,
		"LATCHKEY_MONGODB_URI=" + s.mongoURI,
		"LATCHKEY_KMS_KEY_ID=" + KeyAlias,
		"LATCHKEY_KMS_REGION=" + Region,
		"LATCHKEY_KMS_ENDPOINT=" + s.kmsURL,
		"LATCHKEY_MESH_URL=" + s.MeshURL,
		"LATCHKEY_MESH_CLIENT_ID=" + ClientID,
		"LATCHKEY_MESH_CLIENT_SECRET=" + ClientSecret,
		"AWS_ACCESS_KEY_ID=" + AccessKeyID,
		"AWS_SECRET_ACCESS_KEY=" + SecretAccessKey,
	}
}

// WebIdentity writes an identity token into a folder and returns the environment, to be
// added to Environ, with which the AWS SDK exchanges it for credentials at the simulated
// STS, as in a pod.
func (s *Stack) WebIdentity(dir string) ([]string, error) {
	file := filepath.Join(dir, "identity-token")
	if err := os.WriteFile(file, []byte(identityToken), 0o600); err != nil {
		return nil, fmt.Errorf("writing an identity token: %w", err)
	}
	return []string{
		"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=",
		"AWS_WEB_IDENTITY_TOKEN_FILE=" + file,
		"AWS_ROLE_ARN=arn:aws:iam::111122223333:role/sandbox",
		"AWS_ENDPOINT_URL_STS=" + s.stsURL,
	}, nil
}

// Config loads the configuration of a worker from Environ and more variables, and sets the
// AWS credentials in this process's environment.
func (s *Stack) Config(more ...string) (config.Config, error) {
	err := errors.Join(os.Setenv("AWS_ACCESS_KEY_ID", AccessKeyID), os.Setenv("AWS_SECRET_ACCESS_KEY", SecretAccessKey))
	if err != nil {
		return config.Config{}, fmt.Errorf("setting the simulated AWS credentials: %w", err)
	}
	return config.Load("", append(s.Environ(), more...))
}
