// Package kmssim is a simulated AWS Key Management Service: an http.Handler
// that the AWS SDK's own KMS client talks to by way of a base endpoint. It is
// for the sandbox and for tests. It is no vault: key material lies in the clear
// in files that only their owner may read.
//
// # What is simulated
//
// The protocol is AWS JSON 1.1. Requests must carry a Signature Version 4 made
// with the configured access key over method, path, signed headers and body.
//
// GenerateDataKey, Decrypt and ReEncrypt work on symmetric encryption keys.
// CreateKey, DescribeKey, EnableKey, DisableKey and UpdateAlias serve to manage
// them, and [KMS.Replicate] puts a replica of a multi-Region key into another
// Region. Key ids (of multi-Region keys, mrk-..., too), key ARNs, alias names and
// alias ARNs all name a key where AWS accepts them. The encryption context is
// authenticated with the ciphertext and may hold 8,192 bytes of names and values
// together.
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
// Errors the client made have status 400 and errors of the service 500; what is
// no AWS JSON 1.1 request to KMS at all gets 404.
//
// [Faults] makes the service throttle, fail, hang up or answer late, and
// [KMS.Calls] counts requests by operation.
//
// # What is not simulated
//
// All else. A request with a parameter that is not simulated gets a
// ValidationException. A signature stays good for ever, so that a test's clock
// need not agree with the client's. Ciphertext blobs have a format of their own,
// which AWS cannot read.
package kmssim
