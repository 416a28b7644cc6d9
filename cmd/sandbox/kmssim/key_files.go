package kmssim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const keyFileSuffix = ".json"

func openKeyring(dir, region string) (*keyring, error) {
	r := &keyring{dir: dir, region: region, keys: map[string]*key{}, aliases: map[string]string{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of the keys: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the folder of the keys: %w", err)
	}
	for _, entry := range entries {
		if filepath.Ext(entry.Name()) != keyFileSuffix {
			continue
		}
		k, err := r.load(entry.Name())
		if err != nil {
			return nil, fmt.Errorf("reading key file %s: %w", filepath.Join(dir, entry.Name()), err)
		}
		r.index(k)
	}
	return r, nil
}

func (r *keyring) load(name string) (*key, error) {
	data, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		return nil, err
	}
	var k key
	if err := json.Unmarshal(data, &k); err != nil {
		return nil, err
	}
	switch {
	case !keyIDPattern.MatchString(k.ID) || name != k.ID+keyFileSuffix:
		return nil, errors.New("the file is not named after a key id")
	case len(k.Material) != materialLength:
		return nil, fmt.Errorf("key material has %d bytes instead of %d", len(k.Material), materialLength)
	case k.ARN != r.arn("key/"+k.ID):
		return nil, fmt.Errorf("%s is not a key of account %s in %s", k.ARN, account, r.region)
	}
	for _, a := range k.Aliases {
		if other, ok := r.aliases[a.Name]; ok {
			return nil, fmt.Errorf("%s is an alias of key %s already", a.Name, other)
		}
	}
	return &k, nil
}

// save replaces the key's file as a whole: after a crash there is the old file or the new
// one.
func (r *keyring) save(k *key) error {
	data, err := json.MarshalIndent(k, "", "\t")
	if err != nil {
		return fmt.Errorf("encoding key %s: %w", k.ID, err)
	}
	// CreateTemp makes files that only their owner may read.
	tmp, err := os.CreateTemp(r.dir, ".key-*.tmp")
	if err != nil {
		return fmt.Errorf("writing key %s: %w", k.ID, err)
	}
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), filepath.Join(r.dir, k.ID+keyFileSuffix))
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("writing key %s: %w", k.ID, err)
	}
	return nil
}
