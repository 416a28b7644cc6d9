package kmssim

import (
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

const (
	maxPlaintext   = 4096
	maxBlob        = 6144
	maxKeyRef      = 2048
	maxDescription = 8192
	maxDataKey     = 1024
	maxContext     = 8192
)

func invalid(format string, args ...any) error {
	return clientError("ValidationException", fmt.Sprintf(format, args...))
}

// checkLength says, without repeating the value, that the length of a parameter
// is not from low to high.
func checkLength(parameter string, length, low, high int) error {
	switch {
	case length < low:
		return invalid("1 validation error detected: Value at '%s' failed to satisfy constraint: "+
			"Member must have length greater than or equal to %d", parameter, low)
	case length > high:
		return invalid("1 validation error detected: Value at '%s' failed to satisfy constraint: "+
			"Member must have length less than or equal to %d", parameter, high)
	}
	return nil
}

// checkKeyRef checks a required name of a key.
func checkKeyRef(parameter string, ref *string) error {
	if ref == nil {
		return invalid("1 validation error detected: Value at '%s' failed to satisfy constraint: "+
			"Member must not be null", parameter)
	}
	return checkLength(parameter, len(*ref), 1, maxKeyRef)
}

func checkContext(parameter string, context map[string]string) error {
	size := 0
	for name, value := range context {
		size += len(name) + len(value)
	}
	if size > maxContext {
		return invalid("%s must not exceed %d bytes", parameter, maxContext)
	}
	return nil
}

// checkAlgorithm accepts the one algorithm of symmetric keys.
func checkAlgorithm(parameter string, algorithm types.EncryptionAlgorithmSpec) error {
	switch {
	case algorithm == "" || algorithm == types.EncryptionAlgorithmSpecSymmetricDefault:
		return nil
	case slices.Contains(algorithm.Values(), algorithm):
		return clientError("InvalidKeyUsageException",
			fmt.Sprintf("Algorithm %s is incompatible with key spec SYMMETRIC_DEFAULT.", algorithm))
	}
	return invalid("1 validation error detected: Value at '%s' failed to satisfy constraint: "+
		"Member must satisfy enum value set: %v", parameter, algorithm.Values())
}

func checkRecipient(recipient *types.RecipientInfo) error {
	if recipient != nil {
		return clientError("UnsupportedOperationException", "Attestation is not simulated.")
	}
	return nil
}

// ignoresCiphertext tells whether the modifiers of a dry run ask for it to do
// without a ciphertext, and checks that these and the dry run fit together.
func ignoresCiphertext(dryRun *bool, modifiers []types.DryRunModifierType, keyRef *string) (bool, error) {
	for _, m := range modifiers {
		if m != types.DryRunModifierTypeIgnoreCiphertext {
			return false, invalid("1 validation error detected: Value at 'dryRunModifiers' failed to satisfy "+
				"constraint: Member must satisfy enum value set: %v", m.Values())
		}
	}
	switch {
	case len(modifiers) == 0:
		return false, nil
	case !isTrue(dryRun):
		return false, invalid("DryRunModifiers needs DryRun")
	case keyRef == nil:
		return false, invalid("IGNORE_CIPHERTEXT needs the key to be named")
	}
	return true, nil
}

// finishDryRun ends an operation that only had to tell whether it would succeed.
func finishDryRun(dryRun *bool) error {
	if isTrue(dryRun) {
		return clientError("DryRunOperationException",
			"The request would have succeeded, but the DryRun option is set.")
	}
	return nil
}

func isTrue(b *bool) bool { return b != nil && *b }

// first returns the first error there is. Unlike errors.Join it keeps to the one
// error that an answer can carry.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
