// Package kmssim simulates AWS KMS: an http.Handler that the AWS SDK's KMS client reaches
// by a base endpoint. It is for the sandbox and for tests: key material lies in the clear
// in files that only their owner may read.
//
// [KMS] speaks AWS JSON 1.1 and checks Signature Version 4, but not its age: a test's clock
// need not agree with the client's. It has the operations in the table of operations.go;
// [KMS.Replicate] puts a replica of a multi-Region key into another Region. Key ids, key
// ARNs, alias names and alias ARNs name a key where AWS accepts them.
//
// Errors carry the names AWS gives them, so that errors.As finds the SDK's types. A request
// with a parameter that is not simulated gets a ValidationException, one for another
// operation an UnknownOperationException. AWS cannot read the ciphertext blobs.
//
// [Faults] makes the service throttle, fail, hang up or answer late, and [KMS.Calls] counts
// requests by operation. [STS] gives a worker in a pod its credentials.
package kmssim
