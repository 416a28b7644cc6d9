package envelope

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
)

// multiRegion begins the resource in the ARN of a multi-Region key.
const multiRegion = "key/mrk-"

// RegionalARN returns the ARN of a KMS key in a Region (empty: its own). Only that of a
// multi-Region key differs.
func RegionalARN(kek, region string) string {
	parsed, err := arn.Parse(kek)
	if err != nil || region == "" || !strings.HasPrefix(parsed.Resource, multiRegion) {
		return kek
	}
	parsed.Region = region
	return parsed.String()
}
