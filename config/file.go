package config

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/parser"
)

const maxFileSize = 1 << 20

var errTooLarge = errors.New("file too large")

// cause returns why a file could not be read, without the path.
func cause(err error) string {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err.Error()
	}
	return err.Error()
}

func (l *loader) readFile(path string) {
	problem := func(text string) {
		l.faults = append(l.faults, Fault{Problem: fmt.Sprintf("configuration file %q %s", path, text)})
	}
	content, err := readUpTo(path, maxFileSize)
	if err != nil {
		problem("cannot be read: " + cause(err))
		return
	}
	file, err := parser.ParseBytes(content, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		problem("is not YAML: " + syntaxProblem(err))
		return
	}
	if len(file.Docs) > 1 {
		problem("must be a single YAML document")
		return
	}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if _, ok := entries(doc.Body); !ok {
			problem("must be a mapping of sections")
			return
		}
		l.readSection(doc.Body, "", reflect.ValueOf(&l.config).Elem())
	}
}

// syntaxProblem returns the error's message and line, up to the first quotation from
// the file of more than one character.
func syntaxProblem(err error) string {
	syntax, ok := errors.AsType[*yaml.SyntaxError](err)
	if !ok || syntax.Token == nil {
		return "malformed"
	}
	message, _, _ := strings.Cut(syntax.Message, `"`)
	return strings.TrimSpace(message) + at(syntax.Token.Position.Line)
}
