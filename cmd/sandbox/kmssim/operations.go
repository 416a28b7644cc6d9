package kmssim

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// An operation takes the body of a request and returns the value of the answer's.
type operation func(*KMS, []byte) (any, error)

var operations = map[string]operation{
	"CreateKey":       operationOf((*KMS).createKey),
	"Decrypt":         operationOf((*KMS).decrypt),
	"DescribeKey":     operationOf((*KMS).describeKey),
	"DisableKey":      operationOf(setDisabled(true)),
	"EnableKey":       operationOf(setDisabled(false)),
	"GenerateDataKey": operationOf((*KMS).generateDataKey),
	"ReEncrypt":       operationOf((*KMS).reEncrypt),
	"UpdateAlias":     operationOf((*KMS).updateAlias),
}

// operationOf decodes the parameters of a request, which are the fields of In.
func operationOf[In, Out any](run func(*KMS, In) (Out, error)) operation {
	return func(k *KMS, body []byte) (any, error) {
		var in In
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&in); err != nil {
			if strings.Contains(err.Error(), "unknown field") {
				return nil, invalid("A parameter is not simulated: %v", err)
			}
			return nil, clientError("SerializationException", "The request is not the JSON of this operation.")
		}
		return run(k, in)
	}
}

const (
	maxBlob    = 6144
	maxKeyRef  = 2048
	maxContext = 8192
)

func invalid(format string, args ...any) error {
	return clientError("ValidationException", fmt.Sprintf(format, args...))
}

// checkLength checks that the length of a parameter is from 1 to most. Its error does not
// repeat the value.
func checkLength(parameter string, length, most int) error {
	if length < 1 || length > most {
		return invalid("1 validation error detected: Value at '%s' failed to satisfy constraint: "+
			"Member must have length from 1 to %d", parameter, most)
	}
	return nil
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

type keyOutput struct {
	KeyMetadata keyMetadata
}

type keyMetadata struct {
	Arn         string
	Enabled     bool
	KeyId       string
	KeyState    types.KeyState
	MultiRegion bool
}

func metadata(key *key) keyOutput {
	state := types.KeyStateEnabled
	if key.Disabled {
		state = types.KeyStateDisabled
	}
	return keyOutput{keyMetadata{Arn: key.ARN, Enabled: !key.Disabled, KeyId: key.ID, KeyState: state, MultiRegion: key.MultiRegion}}
}

type nothing struct{}

type createKeyInput struct{ MultiRegion bool }

func (k *KMS) createKey(in createKeyInput) (out keyOutput, err error) {
	key := k.keys.generate(in.MultiRegion)
	if err := k.keys.add(key); err != nil {
		return out, err
	}
	return metadata(key), nil
}

type keyInput struct{ KeyId string }

func (k *KMS) describeKey(in keyInput) (out keyOutput, err error) {
	key, err := k.keys.resolve(in.KeyId)
	if err != nil {
		return out, err
	}
	return metadata(key), nil
}

func setDisabled(disabled bool) func(*KMS, keyInput) (nothing, error) {
	return func(k *KMS, in keyInput) (nothing, error) { return nothing{}, k.keys.setDisabled(in.KeyId, disabled) }
}

type updateAliasInput struct{ AliasName, TargetKeyId string }

func (k *KMS) updateAlias(in updateAliasInput) (nothing, error) {
	return nothing{}, k.keys.moveAlias(in.TargetKeyId, in.AliasName)
}

type generateDataKeyInput struct {
	KeyId             string
	KeySpec           types.DataKeySpec
	EncryptionContext map[string]string
}

type generateDataKeyOutput struct {
	CiphertextBlob []byte
	KeyId          string
	Plaintext      []byte
}

func (k *KMS) generateDataKey(in generateDataKeyInput) (out generateDataKeyOutput, err error) {
	if err := checkContext("encryptionContext", in.EncryptionContext); err != nil {
		return out, err
	}
	length, ok := map[types.DataKeySpec]int{types.DataKeySpecAes128: 16, types.DataKeySpecAes256: 32}[in.KeySpec]
	if !ok {
		return out, invalid("1 validation error detected: Value at 'keySpec' failed to satisfy constraint: "+
			"Member must satisfy enum value set: %v", in.KeySpec.Values())
	}
	key, err := k.keys.usable(in.KeyId)
	if err != nil {
		return out, err
	}
	out = generateDataKeyOutput{KeyId: key.ARN, Plaintext: make([]byte, length)}
	_, _ = rand.Read(out.Plaintext) // never fails
	out.CiphertextBlob, err = seal(key, in.EncryptionContext, out.Plaintext)
	return out, err
}

type decryptInput struct {
	KeyId             string // empty: the key that the blob names
	CiphertextBlob    []byte
	EncryptionContext map[string]string
}

type decryptOutput struct {
	KeyId     string
	Plaintext []byte
}

func (k *KMS) decrypt(in decryptInput) (out decryptOutput, err error) {
	if err := checkContext("encryptionContext", in.EncryptionContext); err != nil {
		return out, err
	}
	key, plaintext, err := k.open(in.KeyId, in.CiphertextBlob, in.EncryptionContext)
	if err != nil {
		return out, err
	}
	return decryptOutput{KeyId: key.ARN, Plaintext: plaintext}, nil
}

type reEncryptInput struct {
	CiphertextBlob               []byte
	SourceKeyId                  string // empty: the key that the blob names
	SourceEncryptionContext      map[string]string
	DestinationKeyId             string
	DestinationEncryptionContext map[string]string
}

type reEncryptOutput struct {
	CiphertextBlob []byte
	KeyId          string
	SourceKeyId    string
}

func (k *KMS) reEncrypt(in reEncryptInput) (out reEncryptOutput, err error) {
	for name, context := range map[string]map[string]string{"sourceEncryptionContext": in.SourceEncryptionContext, "destinationEncryptionContext": in.DestinationEncryptionContext} {
		if err := checkContext(name, context); err != nil {
			return out, err
		}
	}
	from, plaintext, err := k.open(in.SourceKeyId, in.CiphertextBlob, in.SourceEncryptionContext)
	if err != nil {
		return out, err
	}
	defer clear(plaintext)
	to, err := k.keys.usable(in.DestinationKeyId)
	if err != nil {
		return out, err
	}
	blob, err := seal(to, in.DestinationEncryptionContext, plaintext)
	return reEncryptOutput{CiphertextBlob: blob, KeyId: to.ARN, SourceKeyId: from.ARN}, err
}

// open decrypts a blob of the key that ref names; empty: of any.
func (k *KMS) open(ref string, blob []byte, context map[string]string) (*key, []byte, error) {
	if err := checkLength("ciphertextBlob", len(blob), maxBlob); err != nil {
		return nil, nil, err
	}
	var wanted *key
	if ref != "" {
		var err error
		if wanted, err = k.keys.resolve(ref); err != nil {
			return nil, nil, err
		}
	}
	id, err := blobKeyID(blob)
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
	plaintext, err := unseal(key, context, blob)
	return key, plaintext, err
}
