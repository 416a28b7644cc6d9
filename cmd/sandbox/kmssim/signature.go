package kmssim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
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
	auth := authorization.FindStringSubmatch(header)
	if auth == nil {
		return clientError("IncompleteSignatureException", "The Authorization header is not a Signature Version 4.")
	}
	accessKeyID, region, service, signedHeaders, signature := auth[1], auth[2], auth[3], strings.Split(auth[4], ";"), auth[5]
	credentials := k.credentials
	if s, ok := k.sessions.Load(accessKeyID); ok {
		session := s.(session)
		if !session.now().Before(session.credentials.Expires) {
			return clientError("ExpiredTokenException", "The security token included in the request is expired.")
		}
		credentials = session.credentials
	}
	if accessKeyID != credentials.AccessKeyID {
		return clientError("UnrecognizedClientException", "The security token included in the request is invalid.")
	}
	if region != k.region || service != serviceName {
		return clientError("InvalidSignatureException",
			fmt.Sprintf("Credential should be scoped to %s and %s.", k.region, serviceName))
	}
	date, err := time.Parse(dateFormat, r.Header.Get(dateHeader))
	if err != nil || !slices.Contains(signedHeaders, "x-amz-target") {
		return clientError("IncompleteSignatureException", "X-Amz-Date and X-Amz-Target must be sent and signed.")
	}

	again := r.Clone(r.Context())
	again.Header = http.Header{}
	again.ContentLength = 0
	for _, name := range signedHeaders {
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
	_, expected, _ := strings.Cut(again.Header.Get("Authorization"), "Signature=")
	if !hmac.Equal([]byte(signature), []byte(expected)) {
		return clientError("InvalidSignatureException",
			"The request signature we calculated does not match the signature you provided.")
	}
	return nil
}

// authorization matches a Signature Version 4: access key, Region, service, signed headers and
// signature.
var authorization = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/,]+)/[^/,]+/([^/,]+)/([^/,]+)/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([^,]+)$`)
