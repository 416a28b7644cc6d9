package envelope_test

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/store/envelope"
)

// answering is an HTTP server that gives one answer, which can be exchanged.
type answering struct {
	*httptest.Server
	status int
	body   string
}

func newAnswering(t *testing.T, status int, body string) *answering {
	t.Helper()
	a := &answering{status: status, body: body}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, a.body)
	}))
	t.Cleanup(a.Close)
	return a
}

// environment makes the SDK find nothing but what a test gives it.
func environment(t *testing.T, variables map[string]string) {
	t.Helper()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	home := t.TempDir()
	for name, value := range map[string]string{
		"HOME": home, "AWS_CONFIG_FILE": filepath.Join(home, "config"), "AWS_SHARED_CREDENTIALS_FILE": filepath.Join(home, "credentials"),
		"AWS_REGION": "eu-central-1", "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(name, value)
	}
	for name, value := range variables {
		t.Setenv(name, value)
	}
}

// clientOf is a KMS client whose credentials come from where a worker's do.
func clientOf(t *testing.T, endpoint string) *kms.Client {
	t.Helper()
	loaded, err := awsconfig.LoadDefaultConfig(t.Context())
	require.NoError(t, err)
	return kms.NewFromConfig(loaded, func(o *kms.Options) { o.BaseEndpoint = &endpoint })
}

// requireOutage asks the client for keys whose ages are over: they go on for as
// long as an outage may last, and no longer.
func requireOutage(t *testing.T, to *kms.Client) {
	t.Helper()
	f := newFixture(t)
	o, client := f.options(), f.client
	o.KMS = switching{&client}
	told := make(chan error, 100)
	o.OnKMS = func(_ string, err error) { told <- err }
	e := newEnvelope(o)
	blob := seal(t, e, "x")
	other := seal(t, f.envelope(), "y")
	f.clock.Advance(24 * time.Hour)
	requireOpens(t, e, blob, "x") // unwrapped anew
	client = to
	for len(told) > 0 {
		require.NoError(t, <-told)
	}
	f.clock.Advance(time.Hour + outage - 2*pause)
	for range 2 { // KMS is asked; then it is known to be away, and asked beside
		requireOpens(t, e, blob, "x")
		_, err := e.Open(t.Context(), other, binding)
		require.ErrorIs(t, err, envelope.ErrKMS)
		require.NotErrorIs(t, err, envelope.ErrWrappedKey)
		err = <-told
		require.Error(t, err)
		require.False(t, envelope.Refused(err), "%v", err)
		require.False(t, envelope.AboutCiphertext(err), "%v", err)
		f.clock.Advance(pause)
	}
	_, err := e.Open(t.Context(), blob, binding)
	require.ErrorIs(t, err, envelope.ErrKMS)

	// A key that seals goes on likewise.
	client = f.client
	e = newEnvelope(o)
	blob = seal(t, e, "x")
	client = to
	f.clock.Advance(24 * time.Hour)
	require.Equal(t, blob.KeyID, seal(t, e, "y").KeyID)
}

// stsError is how STS states an error.
func stsError(code string) string {
	return `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>` + code +
		`</Code><Message>no</Message></Error><RequestId>1</RequestId></ErrorResponse>`
}

// Codes that KMS states as well are no refusals, and not about a ciphertext,
// when others state them.
var codesOfOthers = []string{
	"IDPCommunicationError", "ExpiredTokenException", "InvalidIdentityToken", "IDPRejectedClaim", "AccessDenied", "RegionDisabledException",
	"AccessDeniedException", "NotFoundException", "DisabledException", "KMSInvalidStateException", "NotAuthorized",
	"ValidationException", "ValidationError", "InvalidCiphertextException", "IncorrectKeyException",
}

// Before KMS is asked the SDK needs credentials. Whoever fails to give them is
// not KMS.
func TestCredentialsThatAreNotThereAreAnOutage(t *testing.T) {
	kmsServer := newAnswering(t, http.StatusBadRequest, `{"__type":"AccessDeniedException"}`) // never asked
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("a.web.token"), 0o600))

	type source struct {
		variables func(endpoint string) map[string]string
		config    func(endpoint string) string
		body      func(code string) string
		// retries: the SDK tries again for some seconds, whatever its options.
		retries bool
	}
	jsonBody := func(code string) string {
		return fmt.Sprintf(`{"__type":%[1]q,"code":%[1]q,"Code":%[1]q,"message":"no"}`, code)
	}
	sources := map[string]source{
		"web identity at STS": {
			variables: func(endpoint string) map[string]string {
				return map[string]string{"AWS_ENDPOINT_URL_STS": endpoint, "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/w", "AWS_WEB_IDENTITY_TOKEN_FILE": token}
			},
			body: stsError,
		},
		"role assumed at STS": {
			variables: func(endpoint string) map[string]string {
				return map[string]string{"AWS_ENDPOINT_URL_STS": endpoint, "AWS_PROFILE": "w"}
			},
			config: func(string) string {
				return "[profile w]\nrole_arn = arn:aws:iam::123456789012:role/w\nsource_profile = base\n[profile base]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = example\n"
			},
			body: stsError,
		},
		"container endpoint (ECS, EKS Pod Identity)": {
			variables: func(endpoint string) map[string]string {
				return map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": endpoint}
			},
			body: jsonBody, retries: true,
		},
		"instance metadata": {
			variables: func(endpoint string) map[string]string {
				return map[string]string{"AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint}
			},
			body: jsonBody, retries: true,
		},
		"single sign-on": {
			variables: func(endpoint string) map[string]string {
				return map[string]string{"AWS_ENDPOINT_URL_SSO": endpoint, "AWS_PROFILE": "w"}
			},
			config: func(string) string {
				return "[profile w]\nsso_start_url = https://sso.example\nsso_region = eu-central-1\nsso_account_id = 123456789012\nsso_role_name = w\n"
			},
			body: jsonBody,
		},
	}
	prepare := func(t *testing.T, s source, endpoint string) {
		t.Helper()
		environment(t, s.variables(endpoint))
		if s.config == nil {
			return
		}
		require.NoError(t, os.WriteFile(os.Getenv("AWS_CONFIG_FILE"), []byte(s.config(endpoint)), 0o600))
		cache := filepath.Join(os.Getenv("HOME"), ".aws", "sso", "cache")
		require.NoError(t, os.MkdirAll(cache, 0o700))
		name := sha1.Sum([]byte("https://sso.example"))
		require.NoError(t, os.WriteFile(filepath.Join(cache, hex.EncodeToString(name[:])+".json"),
			[]byte(`{"accessToken":"t","expiresAt":"2100-01-01T00:00:00Z"}`), 0o600))
	}
	for name, s := range sources {
		t.Run(name, func(t *testing.T) {
			giver := newAnswering(t, http.StatusBadRequest, "")
			codes := codesOfOthers
			for _, code := range codes {
				giver.body = s.body(code)
				prepare(t, s, giver.URL)
				requireOutage(t, clientOf(t, kmsServer.URL))
			}
			if s.retries {
				return
			}
			giver.Close()
			prepare(t, s, giver.URL)
			requireOutage(t, clientOf(t, kmsServer.URL))
		})
	}
	t.Run("none anywhere", func(t *testing.T) {
		environment(t, nil)
		requireOutage(t, clientOf(t, kmsServer.URL))
	})
	t.Run("a process that fails", func(t *testing.T) {
		environment(t, map[string]string{"AWS_PROFILE": "w"})
		require.NoError(t, os.WriteFile(os.Getenv("AWS_CONFIG_FILE"), []byte("[profile w]\ncredential_process = exit 1\n"), 0o600))
		requireOutage(t, clientOf(t, kmsServer.URL))
	})
}

// static are credentials that need nobody.
var static = map[string]string{"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "example"}

func kmsError(code string) string {
	return fmt.Sprintf(`{"__type":"com.amazonaws.kms#%s","message":"no"}`, code)
}

func TestWhatKMSItselfAnswers(t *testing.T) {
	environment(t, static)
	server := newAnswering(t, http.StatusBadRequest, "")
	for kind, codes := range map[string][]string{
		"outage": {
			// It does not take the credentials: expired, a wrong clock, a session that STS could not replace.
			"ExpiredTokenException", "UnrecognizedClientException", "InvalidSignatureException", "SignatureDoesNotMatch", "IncompleteSignature",
			"IncompleteSignatureException", "InvalidClientTokenId", "MissingAuthenticationTokenException", "RequestExpired", "OptInRequired",
			// It can't now.
			"ThrottlingException", "LimitExceededException", "KMSInternalException", "KeyUnavailableException", "DependencyTimeoutException",
			"ServiceUnavailableException", "InternalFailure", "RequestAbortedException",
			// Nobody knows.
			"UnknownOperationException", "SomethingNewException", "",
		},
		"refusal": {
			"AccessDeniedException", "DisabledException", "NotFoundException", "KMSInvalidStateException", "InvalidKeyUsageException", "NotAuthorized",
		},
		"ciphertext": {"InvalidCiphertextException", "IncorrectKeyException", "ValidationException"},
	} {
		for _, code := range codes {
			server.body = kmsError(code)
			client := clientOf(t, server.URL) // a new one has not learnt to wait from throttling
			_, err := client.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: []byte("x")})
			require.Error(t, err)
			wrapped := fmt.Errorf("unwrapping: %w", fmt.Errorf("%w: %w", envelope.ErrKMS, err))
			require.Equal(t, kind == "refusal", envelope.Refused(wrapped), "%s: %v", code, err)
			require.Equal(t, kind == "ciphertext", envelope.AboutCiphertext(wrapped), "%s: %v", code, err)
			if kind == "outage" {
				requireOutage(t, client)
			}
		}
	}
	require.False(t, envelope.Refused(nil))
}
