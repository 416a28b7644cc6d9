// Package commands finds the shell commands in the documentation, so that tests
// can hold each against the program that it calls.
package commands

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// Command is a call of a program.
type Command struct {
	// Where tells file and line.
	Where string
	// Words are the program and its arguments. What only a shell can know is "x".
	Words []string
	// Assigned are the variables that are set for it, or given to make.
	Assigned map[string]string
	// Mentioned: it stands in the middle of a text, which may only name it.
	Mentioned bool
}

// Program is the name of the program without its folder.
func (c Command) Program() string { return path.Base(c.Words[0]) }

// Programs are those of this project: a line of indented or inline code is a
// command if it begins with one.
var Programs = []string{"latchkey", "sandbox", "make"}

// In returns the commands in Markdown files: in fenced blocks marked sh, and in
// indented blocks and inline code that begin with one of Programs. Slashes in
// the patterns are as in filepath.Glob.
func In(patterns ...string) ([]Command, error) {
	var all []Command
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			return nil, fmt.Errorf("no files %s: %w", pattern, err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			for _, s := range scripts(string(content)) {
				found, err := parse(fmt.Sprintf("%s:%d", file, s.line), s.text)
				if err != nil {
					return nil, err
				}
				for i := range found {
					found[i].Mentioned = s.mentioned
				}
				all = append(all, found...)
			}
		}
	}
	return all, nil
}

// script is a piece of shell in a document.
type script struct {
	line      int
	text      string
	mentioned bool
}

var (
	inline = regexp.MustCompile("`([^`]+)`")
	fence  = regexp.MustCompile("^ *(?:[0-9]+\\. +|- +)?```(.*)$")
)

func scripts(document string) (all []script) {
	var block *script // in a fence; one that is no shell has line 0
	for i, line := range strings.Split(document, "\n") {
		marks := fence.FindStringSubmatch(line)
		switch {
		case block != nil && marks != nil:
			if block.line > 0 {
				all = append(all, *block)
			}
			block = nil
		case block != nil:
			block.text += line + "\n"
		case marks != nil:
			block = &script{}
			if slices.Contains([]string{"sh", "bash", "shell", "console"}, marks[1]) {
				block.line = i + 2
			}
		case strings.HasPrefix(line, "    ") && ours(strings.TrimSpace(line)):
			all = append(all, script{line: i + 1, text: strings.TrimSpace(line)})
		default:
			for _, code := range inline.FindAllStringSubmatch(line, -1) {
				if ours(code[1]) && !strings.Contains(code[1], "…") {
					all = append(all, script{i + 1, code[1], true})
				}
			}
		}
	}
	return all
}

// ours reports whether code calls a program of this project with something.
func ours(code string) bool {
	// Variables may be set before it.
	words := strings.Fields(assignments.ReplaceAllString(code, ""))
	return len(words) > 1 && slices.Contains(Programs, path.Base(words[0]))
}

var (
	assignments = regexp.MustCompile(`^([A-Z_]+=('[^']*'|"[^"]*"|\S*) +)+`)
	placeholder = regexp.MustCompile(`<[a-z][A-Za-z -]*>`)
)

// parse returns all calls in a piece of shell, however deep.
func parse(where, text string) (all []Command, err error) {
	text = placeholder.ReplaceAllString(text, "x")
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), where)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	syntax.Walk(file, func(node syntax.Node) bool {
		call, ok := node.(*syntax.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		c := Command{Where: fmt.Sprintf("%s+%d", where, call.Pos().Line()-1), Assigned: map[string]string{}}
		for _, a := range call.Assigns {
			c.Assigned[a.Name.Value] = word(a.Value)
		}
		for _, arg := range call.Args {
			w := word(arg)
			if name, value, found := strings.Cut(w, "="); found && len(c.Words) > 0 && c.Program() == "make" {
				c.Assigned[name] = value
				continue
			}
			c.Words = append(c.Words, w)
		}
		all = append(all, c)
		return true
	})
	return all, nil
}

// word is what a shell would make of a word, as far as the word alone tells.
func word(w *syntax.Word) string {
	if w == nil {
		return ""
	}
	return parts(w.Parts)
}

func parts(all []syntax.WordPart) string {
	var b strings.Builder
	for _, part := range all {
		switch p := part.(type) {
		case *syntax.Lit:
			b.WriteString(p.Value)
		case *syntax.SglQuoted:
			b.WriteString(p.Value)
		case *syntax.DblQuoted:
			b.WriteString(parts(p.Parts))
		default:
			b.WriteByte('x')
		}
	}
	return b.String()
}
