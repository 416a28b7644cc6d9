package cli

import (
	"cmp"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionView is what is told of this program.
type versionView struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Example: `  latchkey version
  latchkey version --output json`,
		Args: cobra.NoArgs,
	}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v := versionView{Version: version(), Revision: revision(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
		return output.show(cmd.OutOrStdout(), v, []string{"version", v.Version}, []string{"revision", cmp.Or(v.Revision, "-")}, []string{"go", v.Go}, []string{"platform", v.Platform})
	}
	return cmd
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(unknown)"
	}
	return info.Main.Version
}

// revision is the commit that this was built from; empty if it is not known.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	var found string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			found = s.Value + found
		case s.Key == "vcs.modified" && s.Value == "true":
			found += " (modified)"
		}
	}
	return found
}
