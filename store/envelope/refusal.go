package envelope

import (
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"
)

// refusals are the codes by which KMS itself says no for as long as nobody
// changes the key or the permission. Codes about the caller's credentials
// (ExpiredTokenException, UnrecognizedClientException, InvalidSignatureException
// and the like) are not among them: KMS has then not looked at the key, and the
// same comes of a wrong clock, or of STS or a credential endpoint being away.
var refusals = map[string]bool{
	"AccessDeniedException":    true,
	"DisabledException":        true,
	"InvalidKeyUsageException": true,
	"KMSInvalidStateException": true, // pending deletion or import, a key store that was disconnected
	"NotAuthorized":            true,
	"NotFoundException":        true,
}

// ciphertextCodes are those by which KMS says that one ciphertext is not good.
var ciphertextCodes = map[string]bool{
	"IncorrectKeyException":      true,
	"InvalidCiphertextException": true,
	"ValidationException":        true, // its length
}

// Refused reports whether KMS itself has definitely refused: access denied, a
// key that is disabled, deleted or unknown. All else is an outage, also what
// kept the SDK from asking KMS, or is not of KMS.
func Refused(err error) bool { return refusals[answerOf(err)] }

// AboutCiphertext reports whether KMS itself calls one wrapped key not good,
// which says nothing about KMS or other keys.
func AboutCiphertext(err error) bool { return ciphertextCodes[answerOf(err)] }

// answerOf returns the error code in KMS's own response, or "" where there was
// none. The error of a call to KMS also wraps what failed before, with errors of
// STS, SSO or a credential endpoint that have codes too. So only the response
// that the operation on KMS itself met counts: nothing but the SDK's note on
// retries may stand between the two.
func answerOf(err error) string {
	var operation *smithy.OperationError
	if !errors.As(err, &operation) || operation.ServiceID != kms.ServiceID {
		return ""
	}
	err = operation.Err
	if attempts, ok := err.(*retry.MaxAttemptsError); ok { //nolint:errorlint // what it wraps must not be looked through
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
