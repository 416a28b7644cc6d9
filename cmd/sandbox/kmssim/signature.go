package kmssim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	algorithm   = "AWS4-HMAC-SHA256 "
	serviceName = "kms"
	dateHeader  = "X-Amz-Date"
	dateFormat  = "20060102T150405Z"
)

// authenticate signs the request with the service's access key and compares the signatures.
func (k *KMS) authenticate(r *http.Request, body []byte) error {
	header := r.Header.Get("Authorization")
	if header == "" {
		return clientError("MissingAuthenticationTokenException", "Missing Authentication Token")
	}
	auth, ok := parseAuthorization(header)
	if !ok {
		return clientError("IncompleteSignatureException", "The Authorization header is not a Signature Version 4.")
	}
	credentials := k.credentials
	if s, ok := k.sessions.Load(auth.accessKeyID); ok {
		session := s.(session)
		if !session.now().Before(session.credentials.Expires) {
			return clientError("ExpiredTokenException", "The security token included in the request is expired.")
		}
		credentials = session.credentials
	}
	if auth.accessKeyID != credentials.AccessKeyID {
		return clientError("UnrecognizedClientException", "The security token included in the request is invalid.")
	}
	if auth.region != k.region || auth.service != serviceName {
		return clientError("InvalidSignatureException",
			fmt.Sprintf("Credential should be scoped to %s and %s.", k.region, serviceName))
	}
	date, err := time.Parse(dateFormat, r.Header.Get(dateHeader))
	if err != nil || !slices.Contains(auth.signedHeaders, "x-amz-target") {
		return clientError("IncompleteSignatureException", "X-Amz-Date and X-Amz-Target must be sent and signed.")
	}

	again := r.Clone(r.Context())
	again.Header = http.Header{}
	again.ContentLength = 0
	for _, name := range auth.signedHeaders {
		switch name {
		case "host": // always signed
		case "content-length":
			again.ContentLength = int64(len(body))
		default:
			again.Header[http.CanonicalHeaderKey(name)] = r.Header.Values(name)
		}
	}
	sum := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(r.Context(), credentials, again,
		hex.EncodeToString(sum[:]), serviceName, k.region, date)
	if err != nil {
		return fmt.Errorf("checking the signature: %w", err)
	}
	expected, ok := parseAuthorization(again.Header.Get("Authorization"))
	if !ok || !hmac.Equal([]byte(auth.signature), []byte(expected.signature)) {
		return clientError("InvalidSignatureException",
			"The request signature we calculated does not match the signature you provided.")
	}
	return nil
}

type authorization struct {
	accessKeyID, region, service string
	signedHeaders                []string
	signature                    string
}

// parseAuthorization reads
//
//	AWS4-HMAC-SHA256 Credential=<key>/<day>/<region>/<service>/aws4_request, SignedHeaders=<a;b>, Signature=<hex>
func parseAuthorization(header string) (authorization, bool) {
	rest, ok := strings.CutPrefix(header, algorithm)
	if !ok {
		return authorization{}, false
	}
	fields := map[string]string{}
	for field := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		fields[name] = value
	}
	scope := strings.Split(fields["Credential"], "/")
	if len(scope) != 5 || scope[4] != "aws4_request" || fields["SignedHeaders"] == "" || fields["Signature"] == "" {
		return authorization{}, false
	}
	return authorization{
		accessKeyID:   scope[0],
		region:        scope[2],
		service:       scope[3],
		signedHeaders: strings.Split(fields["SignedHeaders"], ";"),
		signature:     fields["Signature"],
	}, true
}
