package kmssim

import (
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

const symmetricDefault = string(types.EncryptionAlgorithmSpecSymmetricDefault)

type generateDataKeyOutput struct {
	CiphertextBlob []byte
	KeyId          string
	KeyMaterialId  string
	Plaintext      []byte `json:",omitempty"`
}

func (k *KMS) generateDataKey(in *kms.GenerateDataKeyInput) (*generateDataKeyOutput, error) {
	err := first(
		checkKeyRef("keyId", in.KeyId),
		checkContext("encryptionContext", in.EncryptionContext),
		checkRecipient(in.Recipient),
	)
	if err != nil {
		return nil, err
	}
	length, err := dataKeyLength(in.KeySpec, in.NumberOfBytes)
	if err != nil {
		return nil, err
	}
	key, err := k.usableKey(*in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := finishDryRun(in.DryRun); err != nil {
		return nil, err
	}
	plaintext := make([]byte, length)
	if _, err := io.ReadFull(k.rand, plaintext); err != nil {
		return nil, fmt.Errorf("drawing a data key: %w", err)
	}
	blob, err := seal(k.rand, key, in.EncryptionContext, plaintext)
	if err != nil {
		return nil, err
	}
	return &generateDataKeyOutput{
		CiphertextBlob: blob,
		KeyId:          key.ARN,
		KeyMaterialId:  key.materialID(),
		Plaintext:      plaintext,
	}, nil
}

func (k *KMS) generateDataKeyWithoutPlaintext(in *kms.GenerateDataKeyWithoutPlaintextInput) (*generateDataKeyOutput, error) {
	out, err := k.generateDataKey(&kms.GenerateDataKeyInput{
		KeyId:             in.KeyId,
		DryRun:            in.DryRun,
		EncryptionContext: in.EncryptionContext,
		KeySpec:           in.KeySpec,
		NumberOfBytes:     in.NumberOfBytes,
	})
	if err != nil {
		return nil, err
	}
	out.Plaintext = nil
	return out, nil
}

func dataKeyLength(spec types.DataKeySpec, bytes *int32) (int, error) {
	switch {
	case (spec == "") == (bytes == nil):
		return 0, invalid("Please specify either number of bytes or key spec.")
	case bytes != nil:
		if *bytes < 1 || *bytes > maxDataKey {
			return 0, invalid("1 validation error detected: Value at 'numberOfBytes' failed to satisfy "+
				"constraint: Member must be from 1 to %d", maxDataKey)
		}
		return int(*bytes), nil
	case spec == types.DataKeySpecAes128:
		return 16, nil
	case spec == types.DataKeySpecAes256:
		return 32, nil
	}
	return 0, invalid("1 validation error detected: Value at 'keySpec' failed to satisfy constraint: "+
		"Member must satisfy enum value set: %v", spec.Values())
}

type encryptOutput struct {
	CiphertextBlob      []byte
	EncryptionAlgorithm string
	KeyId               string
}

func (k *KMS) encrypt(in *kms.EncryptInput) (*encryptOutput, error) {
	err := first(
		checkKeyRef("keyId", in.KeyId),
		checkLength("plaintext", len(in.Plaintext), 1, maxPlaintext),
		checkContext("encryptionContext", in.EncryptionContext),
		checkAlgorithm("encryptionAlgorithm", in.EncryptionAlgorithm),
	)
	if err != nil {
		return nil, err
	}
	key, err := k.usableKey(*in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := finishDryRun(in.DryRun); err != nil {
		return nil, err
	}
	blob, err := seal(k.rand, key, in.EncryptionContext, in.Plaintext)
	if err != nil {
		return nil, err
	}
	return &encryptOutput{
		CiphertextBlob:      blob,
		EncryptionAlgorithm: symmetricDefault,
		KeyId:               key.ARN,
	}, nil
}

type decryptOutput struct {
	EncryptionAlgorithm string
	KeyId               string
	KeyMaterialId       string
	Plaintext           []byte
}

func (k *KMS) decrypt(in *kms.DecryptInput) (*decryptOutput, error) {
	err := first(
		checkContext("encryptionContext", in.EncryptionContext),
		checkAlgorithm("encryptionAlgorithm", in.EncryptionAlgorithm),
		checkRecipient(in.Recipient),
	)
	if err != nil {
		return nil, err
	}
	key, plaintext, err := k.open(source{
		parameter: "keyId",
		keyRef:    in.KeyId,
		blob:      in.CiphertextBlob,
		context:   in.EncryptionContext,
		dryRun:    in.DryRun,
		modifiers: in.DryRunModifiers,
	})
	if err != nil {
		return nil, err
	}
	if err := finishDryRun(in.DryRun); err != nil {
		return nil, err
	}
	return &decryptOutput{
		EncryptionAlgorithm: symmetricDefault,
		KeyId:               key.ARN,
		KeyMaterialId:       key.materialID(),
		Plaintext:           plaintext,
	}, nil
}

type reEncryptOutput struct {
	CiphertextBlob                 []byte
	DestinationEncryptionAlgorithm string
	DestinationKeyMaterialId       string
	KeyId                          string
	SourceEncryptionAlgorithm      string
	SourceKeyId                    string
	SourceKeyMaterialId            string
}

func (k *KMS) reEncrypt(in *kms.ReEncryptInput) (*reEncryptOutput, error) {
	err := first(
		checkKeyRef("destinationKeyId", in.DestinationKeyId),
		checkContext("sourceEncryptionContext", in.SourceEncryptionContext),
		checkContext("destinationEncryptionContext", in.DestinationEncryptionContext),
		checkAlgorithm("sourceEncryptionAlgorithm", in.SourceEncryptionAlgorithm),
		checkAlgorithm("destinationEncryptionAlgorithm", in.DestinationEncryptionAlgorithm),
	)
	if err != nil {
		return nil, err
	}
	from, plaintext, err := k.open(source{
		parameter: "sourceKeyId",
		keyRef:    in.SourceKeyId,
		blob:      in.CiphertextBlob,
		context:   in.SourceEncryptionContext,
		dryRun:    in.DryRun,
		modifiers: in.DryRunModifiers,
	})
	if err != nil {
		return nil, err
	}
	defer clear(plaintext)
	to, err := k.usableKey(*in.DestinationKeyId)
	if err != nil {
		return nil, err
	}
	if err := finishDryRun(in.DryRun); err != nil {
		return nil, err
	}
	blob, err := seal(k.rand, to, in.DestinationEncryptionContext, plaintext)
	if err != nil {
		return nil, err
	}
	return &reEncryptOutput{
		CiphertextBlob:                 blob,
		DestinationEncryptionAlgorithm: symmetricDefault,
		DestinationKeyMaterialId:       to.materialID(),
		KeyId:                          to.ARN,
		SourceEncryptionAlgorithm:      symmetricDefault,
		SourceKeyId:                    from.ARN,
		SourceKeyMaterialId:            from.materialID(),
	}, nil
}

// source is what Decrypt and ReEncrypt are told about a ciphertext.
type source struct {
	parameter string  // name of the parameter keyRef came in
	keyRef    *string // nil: whichever key the blob names
	blob      []byte
	context   map[string]string
	dryRun    *bool
	modifiers []types.DryRunModifierType
}

// open decrypts a ciphertext. There is no plaintext if a dry run ignores it.
func (k *KMS) open(s source) (*key, []byte, error) {
	ignored, err := ignoresCiphertext(s.dryRun, s.modifiers, s.keyRef)
	if err != nil {
		return nil, nil, err
	}
	if s.keyRef != nil {
		if err := checkKeyRef(s.parameter, s.keyRef); err != nil {
			return nil, nil, err
		}
	}
	if ignored {
		key, err := k.usableKey(*s.keyRef)
		return key, nil, err
	}
	if err := checkLength("ciphertextBlob", len(s.blob), 1, maxBlob); err != nil {
		return nil, nil, err
	}
	var wanted *key
	if s.keyRef != nil {
		if wanted, err = k.keys.resolve(*s.keyRef); err != nil {
			return nil, nil, err
		}
	}
	id, err := blobKeyID(s.blob)
	if err != nil {
		return nil, nil, err
	}
	key, ok := k.keys.byID(id)
	if !ok {
		return nil, nil, invalidCiphertext()
	}
	if wanted != nil && wanted.ID != key.ID {
		return nil, nil, clientError("IncorrectKeyException",
			"The key ID in the request does not identify a CMK that can perform this operation.")
	}
	if err := key.usable(); err != nil {
		return nil, nil, err
	}
	plaintext, err := unseal(key, s.context, s.blob)
	return key, plaintext, err
}

// usableKey finds the key that ref names, if it is enabled.
func (k *KMS) usableKey(ref string) (*key, error) {
	key, err := k.keys.resolve(ref)
	if err != nil {
		return nil, err
	}
	return key, key.usable()
}
