// Package build says what this program was built from.
package build

import "runtime/debug"

// Version is the version of the module that this was built from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(unknown)"
	}
	return info.Main.Version
}

// Revision is the commit that this was built from; empty if it is not known.
func Revision() string {
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
