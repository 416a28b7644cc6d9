package config

import (
	"reflect"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/latchkey/latchkey/events/secret"
)

// tagName is the tag that names a field in the file and in the environment.
const tagName = "yaml"

// field is one settable value of a section.
type field struct {
	key     string // whole key, such as mesh.timeout
	tag     string // its last part
	section reflect.Value
	value   reflect.Value
}

var secretType = reflect.TypeFor[secret.Text]()

// leaves returns the values below a section in the order of declaration. The
// margins of brokers are not among them: their keys are not known beforehand.
func leaves(key string, section reflect.Value) []field {
	var all []field
	for _, f := range children(key, section) {
		switch {
		case isSection(f.value.Type()):
			all = append(all, leaves(f.key, f.value)...)
		case f.value.Kind() != reflect.Map:
			all = append(all, f)
		}
	}
	return all
}

// children returns a section's direct members.
func children(key string, section reflect.Value) []field {
	var all []field
	for i := range section.NumField() {
		tag, _, _ := strings.Cut(section.Type().Field(i).Tag.Get(tagName), ",")
		all = append(all, field{key: join(key, tag), tag: tag, section: section, value: section.Field(i)})
	}
	return all
}

func join(key, tag string) string {
	if key == "" {
		return tag
	}
	return key + "." + tag
}

func isSection(t reflect.Type) bool { return t.Kind() == reflect.Struct && t != secretType }

func (f field) isSecret() bool { return f.value.Type() == secretType }

// set reads the text into the field, as the same text in the file and in the
// environment means the same. It reports whether the text has the field's form.
func (f field) set(text string) bool {
	isList := f.value.Kind() == reflect.Slice
	if text == "" {
		// The library skips empty variables, but "" is how an operator clears a default.
		if f.isSecret() || isList || f.value.Kind() == reflect.String {
			f.value.SetZero()
			return true
		}
		return false
	}
	err := env.ParseWithOptions(f.section.Addr().Interface(), env.Options{
		TagName:       tagName,
		PrefixTagName: tagName,
		Environment:   map[string]string{f.tag: text},
	})
	if isList && err == nil {
		for i := range f.value.Len() {
			item := f.value.Index(i)
			item.SetString(strings.TrimSpace(item.String()))
		}
	}
	return err == nil
}

// form says what a type's text must look like.
func form(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "must be a duration such as 500ms, 30s or 24h"
	case t.Kind() == reflect.Int, t.Kind() == reflect.Int64:
		return "must be a whole number"
	case t.Kind() == reflect.Float64:
		return "must be a number"
	case t.Kind() == reflect.Bool:
		return "must be true or false"
	case t.Kind() == reflect.Slice:
		return "must be a list of texts"
	case t.Kind() == reflect.Map, isSection(t):
		return "must be a mapping"
	}
	return "must be a text"
}
