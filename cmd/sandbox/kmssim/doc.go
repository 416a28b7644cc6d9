// Package kmssim simulates AWS KMS: an http.Handler that the AWS SDK's KMS client reaches
// by a base endpoint. It is for the sandbox and for tests: key material lies in the clear
// in files that only their owner may read.
//
// # What is simulated
//
// The protocol is AWS JSON 1.1. Requests must carry a Signature Version 4 made
// with the configured access key over method, path, signed headers and body.
//
// GenerateDataKey, Decrypt and ReEncrypt work on symmetric encryption keys. CreateKey,
// DescribeKey, EnableKey, DisableKey and UpdateAlias manage them, and [KMS.Replicate] puts
// a replica of a multi-Region key into another Region. Key ids, key ARNs, alias names and
// alias ARNs name a key where AWS accepts them. The encryption context is authenticated
// with the ciphertext and holds at most 8,192 bytes of names and values.
//
// Errors carry the names AWS gives them, so that errors.As finds the SDK's types:
//
//   - wrong or missing encryption context, altered blob: InvalidCiphertextException
//   - KeyId or SourceKeyId names another key than the blob: IncorrectKeyException
//   - disabled key: DisabledException
//   - unknown key, or an ARN of another Region or account: NotFoundException
//   - lengths and missing or unknown parameters: ValidationException
//   - an operation not named above: UnknownOperationException
//
// Errors of the client have status 400, those of the service 500; other requests than AWS
// JSON 1.1 to KMS get 404.
//
// [Faults] makes the service throttle, fail, hang up or answer late, and
// [KMS.Calls] counts requests by operation.
//
// # What is not simulated
//
// Everything else. A request with a parameter that is not simulated gets a
// ValidationException. Signatures do not expire, so that a test's clock need not agree with
// the client's. AWS cannot read the ciphertext blobs.
package kmssim
