package envelope

import (
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"
)

// refusals are the codes by which KMS refuses until somebody changes the key or the
// permission. Codes about the caller's credentials (ExpiredTokenException,
// UnrecognizedClientException, InvalidSignatureException and the like) are not among them:
// KMS has not looked at the key then, and a wrong clock or an outage of STS or of a
// credential endpoint causes them too.
var refusals = map[string]bool{
	"AccessDeniedException":    true,
	"DisabledException":        true,
	"InvalidKeyUsageException": true,
	"KMSInvalidStateException": true, // pending deletion or import, a key store that was disconnected
	"NotAuthorized":            true,
	"NotFoundException":        true,
}

// ciphertextCodes are the codes by which KMS rejects one ciphertext.
var ciphertextCodes = map[string]bool{
	"IncorrectKeyException":      true,
	"InvalidCiphertextException": true,
	"ValidationException":        true, // its length
}

// Refused reports whether KMS itself has refused: access is denied, or the key is
// disabled, deleted or unknown. Any other failure of a call is an outage.
func Refused(err error) bool { return refusals[answerOf(err)] }

// AboutCiphertext reports whether KMS itself rejects one wrapped key.
func AboutCiphertext(err error) bool { return ciphertextCodes[answerOf(err)] }

// answerOf returns the error code in KMS's own response, or "". The error of a call may
// also wrap errors of STS, SSO or a credential endpoint, which have codes too. So the
// response counts only if nothing but the SDK's note on retries is between it and the
// operation on KMS.
func answerOf(err error) string {
	var operation *smithy.OperationError
	if !errors.As(err, &operation) || operation.ServiceID != kms.ServiceID {
		return ""
	}
	err = operation.Err
	if attempts, ok := err.(*retry.MaxAttemptsError); ok { //nolint:errorlint // what it wraps does not count
		err = attempts.Err
	}
	response, ok := err.(*awshttp.ResponseError) //nolint:errorlint // likewise
	if !ok {
		return ""
	}
	var api smithy.APIError
	if !errors.As(response.Err, &api) {
		return ""
	}
	return api.ErrorCode()
}
