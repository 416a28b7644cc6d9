package cli

import (
	"cmp"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/latchkey/latchkey/cmd/latchkey/build"
)

type versionView struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func versionCommand() *cobra.Command {
	return withOutput(&cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Example: `  latchkey version
  latchkey version --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versionView{Version: build.Version(), Revision: build.Revision(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			return outputOf(cmd).show(cmd.OutOrStdout(), v, []string{"version", v.Version}, []string{"revision", cmp.Or(v.Revision, "-")}, []string{"go", v.Go}, []string{"platform", v.Platform})
		},
	})
}
