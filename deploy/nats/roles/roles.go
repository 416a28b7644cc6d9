// Package roles holds the permissions of each role in NATS, which stand in the files
// beside it.
package roles

import (
	"embed"
	"regexp"
	"slices"
	"strings"

	"github.com/latchkey/latchkey/events"
)

//go:embed *.conf
var files embed.FS

// Permissions are what a role may do. Subjects may have wildcards.
type Permissions struct{ Publish, Subscribe []string }

var (
	comment = regexp.MustCompile(`(?m)^\s*#.*$|\s#.*$`)
	quoted  = regexp.MustCompile(`"([^"]+)"`)
	list    = regexp.MustCompile(`(?s)(publish|subscribe):\s*\[(.*?)\n\]`)
)

// All returns the permissions by role.
func All() map[string]Permissions {
	all := map[string]Permissions{}
	entries, _ := files.ReadDir(".") // embedded: it can't fail
	for _, entry := range entries {
		text, _ := files.ReadFile(entry.Name())
		var p Permissions
		for _, block := range list.FindAllStringSubmatch(comment.ReplaceAllString(string(text), ""), -1) {
			var subjects []string
			for _, q := range quoted.FindAllStringSubmatch(block[2], -1) {
				subjects = append(subjects, q[1])
			}
			if block[1] == "publish" {
				p.Publish = subjects
			} else {
				p.Subscribe = subjects
			}
		}
		all[strings.TrimSuffix(entry.Name(), ".conf")] = p
	}
	return all
}

// Permit returns the roles that may publish or subscribe to a subject of an installation.
func Permit(publish bool, subject string, s events.Subjects) (names []string) {
	subject = plain(subject, s)
	for name, p := range All() {
		subjects := p.Subscribe
		if publish {
			subjects = p.Publish
		}
		if slices.ContainsFunc(subjects, func(pattern string) bool { return covers(pattern, subject) }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

var partition = regexp.MustCompile(`(LATCHKEY_(?:REFRESH|LIFECYCLE|AUDIT))_\d+|(latchkey-refresh-(?:due|urgent))-\d+|((?:^|\.)refresh\.(?:schedule|due|urgent))\.\d+`)

// plain returns a subject as an installation has it without a prefix and partitions.
func plain(subject string, s events.Subjects) string {
	if s.Prefix != "" {
		subject = strings.TrimPrefix(subject, s.Prefix+".")
		subject = strings.ReplaceAll(subject, strings.ToUpper(s.Prefix)+"_LATCHKEY_", "LATCHKEY_")
		subject = strings.ReplaceAll(subject, "latchkey-"+s.Prefix+"-", "latchkey-")
		subject = strings.ReplaceAll(subject, "."+s.Prefix+"-latchkey-tokens", ".latchkey-tokens")
		subject = strings.ReplaceAll(subject, "."+s.Prefix+".", ".") // the filter of a consumer
	}
	return partition.ReplaceAllString(subject, "$1$2$3")
}

// covers reports whether all that a subject matches a pattern matches too.
func covers(pattern, subject string) bool {
	p, s := strings.Split(pattern, "."), strings.Split(subject, ".")
	for i, token := range p {
		switch {
		case token == ">":
			return len(s) > i
		case i >= len(s) || token != "*" && token != s[i]:
			return false
		}
	}
	return len(p) == len(s)
}
