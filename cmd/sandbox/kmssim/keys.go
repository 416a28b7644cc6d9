package kmssim

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/google/uuid"
)

const (
	keyIDLength    = 36
	materialLength = 32
)

var (
	keyIDPattern = regexp.MustCompile(`^(mrk-[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$`)
	aliasPattern = regexp.MustCompile(`^alias/[a-zA-Z0-9/_-]+$`)
)

// key is one KMS key as its file holds it. A key in the keyring never changes: an operation
// replaces it by an altered copy.
type key struct {
	ID          string  `json:"id"`
	ARN         string  `json:"arn"`
	MultiRegion bool    `json:"multi_region,omitempty"`
	Disabled    bool    `json:"disabled,omitempty"`
	Aliases     []alias `json:"aliases,omitempty"`
	Material    []byte  `json:"material"`
}

type alias struct {
	Name string `json:"name"`
}

func (k *key) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(k.Material)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// usable returns nil if the key may be used in a cryptographic operation.
func (k *key) usable() error {
	if k.Disabled {
		return clientError("DisabledException", k.ARN+" is disabled.")
	}
	return nil
}

// keyring holds the keys, each in a file of its own, and finds them by all their names.
type keyring struct {
	dir, region string

	mu      sync.RWMutex
	keys    map[string]*key   // by key id
	aliases map[string]string // key id by alias name
}

func (r *keyring) byID(id string) (*key, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	k, ok := r.keys[id]
	return k, ok
}

// resolve finds the key that ref names: key id, key ARN, alias name or alias ARN.
func (r *keyring) resolve(ref string) (*key, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.lookup(ref, true)
}

// usable is resolve for a key that will be used in a cryptographic operation.
func (r *keyring) usable(ref string) (*key, error) {
	k, err := r.resolve(ref)
	if err != nil {
		return nil, err
	}
	return k, k.usable()
}

// lookup is resolve under the caller's lock. Operations that manage a key allow no alias:
// AWS wants an id or key ARN there.
func (r *keyring) lookup(ref string, aliasAllowed bool) (*key, error) {
	if err := checkLength("keyId", len(ref), maxKeyRef); err != nil {
		return nil, err
	}
	name := ref
	if strings.HasPrefix(ref, "arn:") {
		a, err := arn.Parse(ref)
		if err != nil || a.Service != "kms" || a.Region != r.region || a.AccountID != account {
			return nil, notFound("Invalid arn " + ref)
		}
		name = a.Resource
		if id, ok := strings.CutPrefix(name, "key/"); ok {
			name = id
		} else if !strings.HasPrefix(name, "alias/") {
			return nil, notFound("Invalid arn " + ref)
		}
	}
	id := name
	if strings.HasPrefix(name, "alias/") {
		if !aliasAllowed {
			return nil, notFound("Invalid keyId " + ref)
		}
		var ok bool
		if id, ok = r.aliases[name]; !ok {
			return nil, notFound("Alias " + r.arn(name) + " is not found.")
		}
	}
	k, ok := r.keys[id]
	if !ok {
		return nil, notFound("Key " + r.arn("key/"+id) + " does not exist")
	}
	return k, nil
}

func (r *keyring) add(k *key) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.keys[k.ID]; ok {
		return fmt.Errorf("%s exists", k.ARN)
	}
	return r.put(k)
}

// ensure returns the key that the alias names, and makes both if they don't exist.
func (r *keyring) ensure(name string) (*key, error) {
	if err := checkAliasName(name); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if id, ok := r.aliases[name]; ok {
		return r.keys[id], nil
	}
	k := r.generate(false)
	k.Aliases = []alias{{name}}
	return k, r.put(k)
}

func (r *keyring) moveAlias(ref, name string) error {
	if err := checkAliasName(name); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	id, ok := r.aliases[name]
	if !ok {
		return notFound("Alias " + r.arn(name) + " is not found.")
	}
	to, err := r.lookup(ref, false)
	if err != nil || to.ID == id {
		return err
	}
	from := *r.keys[id]
	from.Aliases = slices.DeleteFunc(slices.Clone(from.Aliases), func(a alias) bool { return a.Name == name })
	if err := r.put(&from); err != nil {
		return err
	}
	changed := *to
	changed.Aliases = append(slices.Clone(to.Aliases), alias{name})
	return r.put(&changed)
}

func (r *keyring) setDisabled(ref string, disabled bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, err := r.lookup(ref, false)
	if err != nil || k.Disabled == disabled {
		return err
	}
	changed := *k
	changed.Disabled = disabled
	return r.put(&changed)
}

// put writes the key to its file, and then into the keyring. The caller holds the lock.
func (r *keyring) put(k *key) error {
	if err := r.save(k); err != nil {
		return err
	}
	r.index(k)
	return nil
}

func (r *keyring) index(k *key) {
	r.keys[k.ID] = k
	for _, a := range k.Aliases {
		r.aliases[a.Name] = k.ID
	}
}

// generate makes a key with new material, and does not store it.
func (r *keyring) generate(multiRegion bool) *key {
	u := uuid.New()
	id := u.String()
	if multiRegion {
		id = "mrk-" + hex.EncodeToString(u[:])
	}
	k := &key{ID: id, ARN: r.arn("key/" + id), MultiRegion: multiRegion, Material: make([]byte, materialLength)}
	_, _ = rand.Read(k.Material) // never fails
	return k
}

func (r *keyring) arn(resource string) string {
	return arn.ARN{Partition: "aws", Service: "kms", Region: r.region, AccountID: account, Resource: resource}.String()
}

func checkAliasName(name string) error {
	if err := checkLength("aliasName", len(name), 256); err != nil {
		return err
	}
	if !aliasPattern.MatchString(name) {
		return clientError("InvalidAliasNameException", "An alias is alias/ and then letters, digits, /, _ and -")
	}
	if strings.HasPrefix(name, "alias/aws/") {
		return clientError("InvalidAliasNameException", "alias/aws/ is reserved")
	}
	return nil
}
