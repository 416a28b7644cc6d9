package envelope

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
)

// multiRegion begins the resource of the ARN of a multi-Region key, which is
// the same key in each of its Regions.
const multiRegion = "key/mrk-"

// RegionalARN returns the ARN by which a KMS key is called in a Region: another
// than its own only for multi-Region keys. An empty Region changes nothing.
func RegionalARN(kek, region string) string {
	parsed, err := arn.Parse(kek)
	if err != nil || region == "" || !strings.HasPrefix(parsed.Resource, multiRegion) {
		return kek
	}
	parsed.Region = region
	return parsed.String()
}
