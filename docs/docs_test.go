// Package docs_test holds what the documentation says against what there is.
package docs_test

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/docs/commands"
)

const top = "../"

// pages are all Markdown files, by their path from the top.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(top, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && slices.Contains([]string{".git", "bin", "node_modules", "testdata", ".sandbox"}, entry.Name()) {
			return fs.SkipDir
		}
		if filepath.Ext(file) == ".md" {
			content, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			out[filepath.ToSlash(strings.TrimPrefix(file, top))] = string(content)
		}
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, len(out), 40)
	return out
}

var (
	fences   = regexp.MustCompile("(?ms)^ *(?:[0-9]+\\. +|- +)?```.*?^ *```$")
	codeSpan = regexp.MustCompile("`[^`\n]+`")
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`(?m)^#+ +(.+)$`)
)

// anchors are the names under which the headings of a page can be linked to, as
// GitHub makes them.
func anchors(page string) (names []string) {
	for _, m := range heading.FindAllStringSubmatch(fences.ReplaceAllString(page, ""), -1) {
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, m[1])
		names = append(names, name)
	}
	return names
}

func TestPagesAreShort(t *testing.T) {
	for file, page := range pages(t) {
		assert.LessOrEqual(t, strings.Count(page, "\n"), 300, "%s is two pages", file)
	}
}

func TestLinksLeadSomewhere(t *testing.T) {
	all := pages(t)
	seen := 0
	for file, page := range all {
		prose := codeSpan.ReplaceAllString(fences.ReplaceAllString(page, ""), "")
		for _, m := range link.FindAllStringSubmatch(prose, -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			seen++
			target, anchor, _ := strings.Cut(m[1], "#")
			to := file
			if target != "" {
				to = path.Join(path.Dir(file), target)
			}
			if _, err := os.Stat(top + to); !assert.NoError(t, err, "%s links to %s", file, m[1]) || anchor == "" {
				continue
			}
			assert.Contains(t, anchors(all[to]), anchor, "%s links to %s", file, m[1])
		}
	}
	require.Greater(t, seen, 100)
}

// place is a code span that names a file or folder.
var place = regexp.MustCompile("`([.A-Za-z0-9_/-]+)`")

// TestNamedFilesExist: what CONTRIBUTING.md and the glossary name in a folder of
// the project is there.
func TestNamedFilesExist(t *testing.T) {
	seen := 0
	for _, file := range []string{"CONTRIBUTING.md", "docs/glossary.md"} {
		for _, m := range place.FindAllStringSubmatch(pages(t)[file], -1) {
			if first, _, inFolder := strings.Cut(m[1], "/"); first == "" || !inFolder || !isFolder(first) {
				continue // a word, or a path elsewhere
			}
			seen++
			_, err := os.Stat(top + m[1])
			assert.NoError(t, err, "%s names %s", file, m[1])
		}
	}
	require.Greater(t, seen, 60)
}

func isFolder(name string) bool {
	info, err := os.Stat(top + name)
	return err == nil && info.IsDir()
}

// TestTheMapIsComplete: each folder with a package, a program or configuration has a line
// in CONTRIBUTING.md.
func TestTheMapIsComplete(t *testing.T) {
	contributing := pages(t)["CONTRIBUTING.md"]
	for _, pattern := range []string{
		"*/*.go", "*/*/*.go", "*/*/*/*.go", "*/*/*/*/*.go", "*/*.yaml", "*/*/*.yaml",
		"*/*/package.json", "*/*/*/package.json", "*/*/*/*/package.json",
	} {
		files, err := filepath.Glob(top + pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files, pattern)
		for _, file := range files {
			folder := filepath.ToSlash(strings.TrimPrefix(filepath.Dir(file), top))
			first, _, _ := strings.Cut(folder, "/")
			if first == "bin" || strings.HasPrefix(folder, "docs/") || path.Base(folder) == "testdata" || strings.Contains(folder, "node_modules") {
				continue
			}
			assert.True(t, strings.Contains(contributing, "`"+folder+"`"), "CONTRIBUTING.md has no line for %s", folder) //nolint:testifylint // Contains would print the page
		}
	}
}

// testFunctions finds the tests, benchmarks and fuzz targets of a package.
var testFunctions = regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz)\w+)\(`)

// TestCommandsNameTestsThatExist: the go test commands in CONTRIBUTING.md run something.
func TestCommandsNameTestsThatExist(t *testing.T) {
	found, err := commands.In(top + "CONTRIBUTING.md")
	require.NoError(t, err)
	seen := 0
	for _, c := range found {
		if c.Program() != "go" {
			continue
		}
		var wanted []*regexp.Regexp
		var names []string
		for i, word := range c.Words {
			switch word {
			case "-run", "-bench", "-fuzz":
				name, _, _ := strings.Cut(c.Words[i+1], "/")
				if name != "^$" {
					wanted = append(wanted, regexp.MustCompile(name))
				}
			}
			if strings.HasPrefix(word, "./") {
				files, err := filepath.Glob(top + word + "/*_test.go")
				require.NoError(t, err)
				for _, file := range files {
					content, err := os.ReadFile(file)
					require.NoError(t, err)
					for _, m := range testFunctions.FindAllStringSubmatch(string(content), -1) {
						names = append(names, m[1])
					}
				}
			}
		}
		for _, pattern := range wanted {
			seen++
			assert.True(t, slices.ContainsFunc(names, pattern.MatchString), "%s: nothing matches %s", c.Where, pattern)
		}
	}
	require.Greater(t, seen, 3)
}

var (
	streamOf   = regexp.MustCompile(`(?m)^  name: (\S+)$`)
	subjectsOf = regexp.MustCompile(`(?m)^  subjects: \[(.+)\]$`)
)

// TestOperationsListsEverySubject: who keeps the streams makes them of its table, and workers
// refuse streams with other subjects.
func TestOperationsListsEverySubject(t *testing.T) {
	manifests, err := os.ReadFile(top + "deploy/nats/streams.yaml")
	require.NoError(t, err)
	names, lists := streamOf.FindAllSubmatch(manifests, -1), subjectsOf.FindAllSubmatch(manifests, -1)
	require.Len(t, lists, len(names))
	require.NotEmpty(t, names)
	operations := pages(t)["docs/operations.md"]
	for i, name := range names {
		row := regexp.MustCompile(`(?m)^\| .` + string(name[1]) + `. \| ([^|]+) \|`).FindStringSubmatch(operations)
		require.NotNil(t, row, "%s", name[1])
		for _, subject := range strings.Split(string(lists[i][1]), ", ") {
			subject = strings.Trim(subject, `"`)
			_, short, _ := strings.Cut(subject, ".")
			assert.True(t, strings.Contains(row[1], "`"+subject+"`") || strings.Contains(row[1], "`."+short+"`"), "%s of %s", subject, name[1])
		}
	}
}

var (
	title    = regexp.MustCompile(`^# (\d+)\. (.+)\n`)
	indexRow = regexp.MustCompile(`(?m)^\| (\d+) \| \[(.+?)\]\((.+?)\) \| \S.* \|$`)
)

func TestEveryDecisionIsInTheIndex(t *testing.T) {
	index := map[string]string{} // file by number and title
	for _, m := range indexRow.FindAllStringSubmatch(pages(t)["docs/decisions/README.md"], -1) {
		index[m[1]+". "+m[2]] = m[3]
	}
	decisions := map[string]string{}
	for file, page := range pages(t) {
		if path.Dir(file) != "docs/decisions" || path.Base(file) == "README.md" {
			continue
		}
		m := title.FindStringSubmatch(page)
		require.NotNil(t, m, file)
		number, err := strconv.Atoi(m[1])
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(path.Base(file), fmt.Sprintf("%04d-", number)), "%s is decision %d", file, number)
		decisions[m[1]+". "+m[2]] = path.Base(file)
	}
	require.Equal(t, decisions, index)
}
