package kmssim

import (
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
)

// Replicate puts a replica of the multi-Region key that ref names into the
// service of another Region: a key with the same id and material, of which each
// opens what the other has sealed. It returns the replica's ARN.
func (k *KMS) Replicate(ref string, to *KMS) (string, error) {
	key, err := k.keys.resolve(ref)
	if err != nil {
		return "", fmt.Errorf("simulated KMS: replicating a key: %w", err)
	}
	if !key.MultiRegion || to.region == k.region {
		return "", fmt.Errorf("simulated KMS: %s can't be replicated to %s", key.ARN, to.region)
	}
	replica := *key
	replica.ARN, replica.Primary, replica.Aliases = to.keys.arn("key/"+key.ID), k.region, nil
	if key.Primary != "" {
		replica.Primary = key.Primary
	}
	to.keys.mu.Lock()
	defer to.keys.mu.Unlock()
	if _, ok := to.keys.keys[key.ID]; ok {
		return "", fmt.Errorf("simulated KMS: %s exists", replica.ARN)
	}
	if err := to.keys.put(&replica); err != nil {
		return "", fmt.Errorf("simulated KMS: replicating %s: %w", key.ARN, err)
	}
	return replica.ARN, nil
}

// arnIn returns an ARN as it is in another Region.
func arnIn(s, region string) string {
	a, err := arn.Parse(s)
	if err != nil {
		return s
	}
	a.Region = region
	return a.String()
}
