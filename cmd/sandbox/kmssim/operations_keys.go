package kmssim

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

const (
	defaultAliases = 50
	maxAliases     = 100
)

// nothing is the answer of operations that have none.
type nothing struct{}

type keyOutput struct {
	KeyMetadata keyMetadata
}

type keyMetadata struct {
	AWSAccountId             string
	Arn                      string
	CreationDate             epoch
	CurrentKeyMaterialId     string
	CustomerMasterKeySpec    string
	Description              string
	Enabled                  bool
	EncryptionAlgorithms     []string
	KeyId                    string
	KeyManager               types.KeyManagerType
	KeySpec                  string
	KeyState                 types.KeyState
	KeyUsage                 types.KeyUsageType
	MultiRegion              bool
	MultiRegionConfiguration *multiRegion `json:",omitempty"`
	Origin                   types.OriginType
}

type multiRegion struct {
	MultiRegionKeyType types.MultiRegionKeyType
	PrimaryKey         regionalKey
	ReplicaKeys        []regionalKey
}

type regionalKey struct {
	Arn    string
	Region string
}

// epoch is a time as AWS JSON writes it: seconds since 1970, with a fraction.
type epoch float64

func epochOf(t time.Time) epoch { return epoch(float64(t.UnixMilli()) / 1000) }

func (k *KMS) metadata(key *key) *keyOutput {
	m := keyMetadata{
		AWSAccountId:          k.keys.account,
		Arn:                   key.ARN,
		CreationDate:          epochOf(key.Created),
		CurrentKeyMaterialId:  key.materialID(),
		CustomerMasterKeySpec: symmetricDefault,
		Description:           key.Description,
		Enabled:               !key.Disabled,
		EncryptionAlgorithms:  []string{symmetricDefault},
		KeyId:                 key.ID,
		KeyManager:            types.KeyManagerTypeCustomer,
		KeySpec:               symmetricDefault,
		KeyState:              types.KeyStateEnabled,
		KeyUsage:              types.KeyUsageTypeEncryptDecrypt,
		MultiRegion:           key.MultiRegion,
		Origin:                types.OriginTypeAwsKms,
	}
	if key.Disabled {
		m.KeyState = types.KeyStateDisabled
	}
	if key.MultiRegion {
		m.MultiRegionConfiguration = &multiRegion{
			MultiRegionKeyType: types.MultiRegionKeyTypePrimary,
			PrimaryKey:         regionalKey{Arn: key.ARN, Region: k.region},
			ReplicaKeys:        []regionalKey{},
		}
		if key.Primary != "" {
			m.MultiRegionConfiguration.MultiRegionKeyType = types.MultiRegionKeyTypeReplica
			m.MultiRegionConfiguration.PrimaryKey = regionalKey{Arn: arnIn(key.ARN, key.Primary), Region: key.Primary}
			m.MultiRegionConfiguration.ReplicaKeys = append(m.MultiRegionConfiguration.ReplicaKeys, regionalKey{Arn: key.ARN, Region: k.region})
		}
	}
	return &keyOutput{KeyMetadata: m}
}

func (k *KMS) createKey(in *kms.CreateKeyInput) (*keyOutput, error) {
	if in.Description == nil {
		in.Description = new(string)
	}
	if err := checkLength("description", len(*in.Description), 0, maxDescription); err != nil {
		return nil, err
	}
	//lint:ignore SA1019 the old parameter is still on the wire and must not be overlooked
	oldSpec := string(in.CustomerMasterKeySpec)
	spec := cmp.Or(string(in.KeySpec), oldSpec, symmetricDefault)
	usage := cmp.Or(in.KeyUsage, types.KeyUsageTypeEncryptDecrypt)
	origin := cmp.Or(in.Origin, types.OriginTypeAwsKms)
	if spec != symmetricDefault || usage != types.KeyUsageTypeEncryptDecrypt ||
		origin != types.OriginTypeAwsKms || in.CustomKeyStoreId != nil || in.XksKeyId != nil {
		return nil, clientError("UnsupportedOperationException", "Only symmetric encryption keys of KMS's own making are simulated.")
	}
	key, err := k.keys.create(*in.Description, isTrue(in.MultiRegion))
	if err != nil {
		return nil, err
	}
	return k.metadata(key), nil
}

func (k *KMS) describeKey(in *kms.DescribeKeyInput) (*keyOutput, error) {
	if err := checkKeyRef("keyId", in.KeyId); err != nil {
		return nil, err
	}
	key, err := k.keys.resolve(*in.KeyId)
	if err != nil {
		return nil, err
	}
	return k.metadata(key), nil
}

func (k *KMS) disableKey(in *kms.DisableKeyInput) (nothing, error) {
	if err := checkKeyRef("keyId", in.KeyId); err != nil {
		return nothing{}, err
	}
	return nothing{}, k.keys.setDisabled(*in.KeyId, true)
}

func (k *KMS) enableKey(in *kms.EnableKeyInput) (nothing, error) {
	if err := checkKeyRef("keyId", in.KeyId); err != nil {
		return nothing{}, err
	}
	return nothing{}, k.keys.setDisabled(*in.KeyId, false)
}

func (k *KMS) createAlias(in *kms.CreateAliasInput) (nothing, error) {
	if err := checkKeyRef("targetKeyId", in.TargetKeyId); err != nil {
		return nothing{}, err
	}
	if in.AliasName == nil {
		in.AliasName = new(string)
	}
	return nothing{}, k.keys.addAlias(*in.TargetKeyId, *in.AliasName)
}

func (k *KMS) updateAlias(in *kms.UpdateAliasInput) (nothing, error) {
	if err := checkKeyRef("targetKeyId", in.TargetKeyId); err != nil {
		return nothing{}, err
	}
	if in.AliasName == nil {
		in.AliasName = new(string)
	}
	return nothing{}, k.keys.moveAlias(*in.TargetKeyId, *in.AliasName)
}

type listAliasesOutput struct {
	Aliases    []aliasEntry
	NextMarker string `json:",omitempty"`
	Truncated  bool
}

type aliasEntry struct {
	AliasArn        string
	AliasName       string
	CreationDate    epoch
	LastUpdatedDate epoch
	TargetKeyId     string
}

// listAliases pages through the aliases by name; the marker is the last name of
// the page before.
func (k *KMS) listAliases(in *kms.ListAliasesInput) (*listAliasesOutput, error) {
	limit := defaultAliases
	if in.Limit != nil {
		if limit = int(*in.Limit); limit < 1 || limit > maxAliases {
			return nil, invalid("1 validation error detected: Value at 'limit' failed to satisfy "+
				"constraint: Member must be from 1 to %d", maxAliases)
		}
	}
	marker := ""
	if in.Marker != nil {
		if marker = *in.Marker; !strings.HasPrefix(marker, "alias/") {
			return nil, clientError("InvalidMarkerException", "The marker is not one that ListAliases gave.")
		}
	}
	if in.KeyId != nil {
		if err := checkKeyRef("keyId", in.KeyId); err != nil {
			return nil, err
		}
	}
	entries, err := k.keys.listAliases(in.KeyId)
	if err != nil {
		return nil, err
	}
	start, _ := slices.BinarySearchFunc(entries, marker, func(e aliasEntry, marker string) int {
		if e.AliasName <= marker {
			return -1
		}
		return 1
	})
	out := &listAliasesOutput{Aliases: entries[start:]}
	if len(out.Aliases) > limit {
		out.Aliases = out.Aliases[:limit]
		out.NextMarker = out.Aliases[limit-1].AliasName
		out.Truncated = true
	}
	return out, nil
}

// listAliases returns all aliases, or those of one key, sorted by name.
func (r *keyring) listAliases(ref *string) ([]aliasEntry, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	keys := r.keys
	if ref != nil {
		k, err := r.lookup(*ref, false)
		if err != nil {
			return nil, err
		}
		keys = map[string]*key{k.ID: k}
	}
	entries := []aliasEntry{}
	for _, k := range keys {
		for _, a := range k.Aliases {
			entries = append(entries, aliasEntry{
				AliasArn:        r.arn(a.Name),
				AliasName:       a.Name,
				CreationDate:    epochOf(a.Created),
				LastUpdatedDate: epochOf(a.Created),
				TargetKeyId:     k.ID,
			})
		}
	}
	slices.SortFunc(entries, func(a, b aliasEntry) int { return cmp.Compare(a.AliasName, b.AliasName) })
	return entries, nil
}
