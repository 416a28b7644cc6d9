package kmssim_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"
)

// request is a signed request as the SDK makes it.
func (s service) request(t *testing.T, operation, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url, strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "TrentService."+operation)
	sign(t, r, body)
	return r
}

func sign(t *testing.T, r *http.Request, body string) {
	t.Helper()
	sum := sha256.Sum256([]byte(body))
	err := v4.NewSigner().SignHTTP(t.Context(),
		aws.Credentials{AccessKeyID: accessKeyID, SecretAccessKey: accessKey},
		r, hex.EncodeToString(sum[:]), "kms", region, time.Unix(1e9, 0))
	require.NoError(t, err)
}

// do sends a request and returns status and error code of the answer.
func do(t *testing.T, r *http.Request) (status int, code string) {
	t.Helper()
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	require.Equal(t, "application/x-amz-json-1.1", resp.Header.Get("Content-Type"))
	require.Len(t, resp.Header.Get("x-amzn-RequestId"), 36)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	var answer struct {
		Type string `json:"__type"`
	}
	require.NoError(t, json.Unmarshal(body, &answer), string(body))
	return resp.StatusCode, answer.Type
}

func TestRequestsThatAreNoneOfKMS(t *testing.T) {
	s := runNew(t)
	status, code := do(t, s.request(t, "DescribeKey", `{"KeyId":"`+keyAlias+`"}`))
	require.Equal(t, http.StatusOK, status)
	require.Empty(t, code)

	for name, spoil := range map[string]func(*http.Request){
		"no target":       func(r *http.Request) { r.Header.Del("X-Amz-Target") },
		"other service":   func(r *http.Request) { r.Header.Set("X-Amz-Target", "DynamoDB_20120810.GetItem") },
		"no content type": func(r *http.Request) { r.Header.Del("Content-Type") },
		"plain JSON":      func(r *http.Request) { r.Header.Set("Content-Type", "application/json") },
		"PUT":             func(r *http.Request) { r.Method = http.MethodPut },
	} {
		r := s.request(t, "DescribeKey", "{}")
		spoil(r)
		status, code := do(t, r)
		require.Equal(t, http.StatusNotFound, status, name)
		require.Equal(t, "UnknownOperationException", code, name)
	}
}

func TestMalformedRequests(t *testing.T) {
	s := runNew(t)
	sealed, _ := s.seal(t, nil)
	blob, err := json.Marshal(map[string][]byte{"CiphertextBlob": sealed})
	require.NoError(t, err)
	for name, c := range map[string]struct {
		operation, body string
		status          int
		code            string
	}{
		"no such operation": {"Nothing", "{}", 400, "UnknownOperationException"},
		"not JSON":          {"Decrypt", "{", 400, "SerializationException"},
		"empty":             {"Decrypt", "", 400, "SerializationException"},
		"wrong type":        {"Decrypt", `{"KeyId": 7}`, 400, "SerializationException"},
		"not base64":        {"Decrypt", `{"KeyId": "x", "CiphertextBlob": "*"}`, 400, "SerializationException"},
		"no key":            {"GenerateDataKey", `{"KeySpec": "AES_256"}`, 400, "ValidationException"},
		"no key to disable": {"DisableKey", "{}", 400, "ValidationException"},
		"no key to enable":  {"EnableKey", "{}", 400, "ValidationException"},
		"no key to show":    {"DescribeKey", "{}", 400, "ValidationException"},
		"no target key":     {"UpdateAlias", `{"AliasName": "` + keyAlias + `"}`, 400, "ValidationException"},
		"no alias":          {"UpdateAlias", `{"TargetKeyId": "x"}`, 400, "ValidationException"},
		"no blob":           {"ReEncrypt", "{}", 400, "ValidationException"},
		"no destination":    {"ReEncrypt", string(blob), 400, "ValidationException"},
		"too large":         {"Decrypt", strings.Repeat(" ", 128<<10+1), 413, "RequestEntityTooLargeException"},
	} {
		t.Run(name, func(t *testing.T) {
			status, code := do(t, s.request(t, c.operation, c.body))
			require.Equal(t, c.status, status)
			require.Equal(t, c.code, code)
		})
	}
}

func TestOperationThatIsNotSimulated(t *testing.T) {
	s := runNew(t)
	_, err := s.ListKeys(t.Context(), &kms.ListKeysInput{})
	requireCode(t, err, "UnknownOperationException")
}

func TestErrorsDoNotRepeatThePlaintext(t *testing.T) {
	s := runNew(t)
	const token = "refresh-token-1234"
	for _, body := range []string{`{"Plaintext": "` + token + `"}`, `{"KeySpec": "` + token + `"}`, `{"KeySpec": ["` + token + `"]}`} {
		resp, err := http.DefaultClient.Do(s.request(t, "GenerateDataKey", body))
		require.NoError(t, err)
		answer, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusBadRequest, resp.StatusCode)
		require.NotContains(t, string(answer), token)
	}
}

func TestRequestsMustBeSignedWithTheAccessKey(t *testing.T) {
	s := runNew(t)
	for name, c := range map[string]struct {
		region string
		creds  aws.CredentialsProvider
		code   string
	}{
		"anonymous":        {region, aws.AnonymousCredentials{}, "MissingAuthenticationTokenException"},
		"other access key": {region, credentials.NewStaticCredentialsProvider("AKIAOTHER", accessKey, ""), "UnrecognizedClientException"},
		"wrong secret":     {region, credentials.NewStaticCredentialsProvider(accessKeyID, "guess", ""), "InvalidSignatureException"},
		"other region":     {"us-west-2", credentials.NewStaticCredentialsProvider(accessKeyID, accessKey, ""), "InvalidSignatureException"},
	} {
		t.Run(name, func(t *testing.T) {
			client := once(aws.Config{Region: c.region, BaseEndpoint: &s.url, Credentials: c.creds})
			_, err := client.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &s.arn})
			requireCode(t, err, c.code)
		})
	}

	session := once(aws.Config{
		Region: region, BaseEndpoint: &s.url,
		Credentials: credentials.NewStaticCredentialsProvider(accessKeyID, accessKey, "session"),
	})
	_, err := session.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &s.arn})
	require.NoError(t, err, "a session token is part of the signature")
}

func TestAlteredRequestIsRefused(t *testing.T) {
	s := runNew(t)
	const body = `{"KeyId":"` + keyAlias + `"}`
	for name, c := range map[string]struct {
		spoil func(*http.Request)
		code  string
	}{
		"body": {func(r *http.Request) {
			r.Body = io.NopCloser(strings.NewReader(strings.Replace(body, "tokens", "Tokens", 1)))
		}, "InvalidSignatureException"},
		"operation": {func(r *http.Request) {
			r.Header.Set("X-Amz-Target", "TrentService.Decrypt")
		}, "InvalidSignatureException"},
		"date": {func(r *http.Request) {
			r.Header.Set("X-Amz-Date", "20300101T000000Z")
		}, "InvalidSignatureException"},
		"no date": {func(r *http.Request) { r.Header.Del("X-Amz-Date") }, "IncompleteSignatureException"},
		"path":    {func(r *http.Request) { r.URL.Path = "/other" }, "InvalidSignatureException"},
		"operation left unsigned": {func(r *http.Request) {
			r.Header.Del("X-Amz-Target")
			sign(t, r, body)
			r.Header.Set("X-Amz-Target", "TrentService.DescribeKey")
		}, "IncompleteSignatureException"},
		"other scheme": {func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer x")
		}, "IncompleteSignatureException"},
		"no signature": {func(r *http.Request) {
			r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=a/b/c/kms/aws4_request, SignedHeaders=host")
		}, "IncompleteSignatureException"},
		"no scope": {func(r *http.Request) {
			r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host, Signature=0")
		}, "IncompleteSignatureException"},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.request(t, "DescribeKey", body)
			c.spoil(r)
			status, code := do(t, r)
			require.Equal(t, http.StatusBadRequest, status)
			require.Equal(t, c.code, code)
		})
	}
}
