package config

import (
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/latchkey/latchkey/events/secret"
)

// tagName is the tag that names a field in the file and in the environment.
const tagName = "yaml"

// field is a field of a section.
type field struct {
	key   string // such as mesh.timeout
	tag   string // such as timeout
	value reflect.Value
}

var secretType = reflect.TypeFor[secret.Text]()

// leaves returns the fields below a section in the order of declaration, without those
// of brokers, whose keys are not known in advance.
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

// children returns the direct members of a section.
func children(key string, section reflect.Value) []field {
	var all []field
	for i := range section.NumField() {
		tag, _, _ := strings.Cut(section.Type().Field(i).Tag.Get(tagName), ",")
		all = append(all, field{key: strings.TrimPrefix(key+"."+tag, "."), tag: tag, value: section.Field(i)})
	}
	return all
}

func isSection(t reflect.Type) bool { return t.Kind() == reflect.Struct && t != secretType }

func (f field) isSecret() bool { return f.value.Type() == secretType }

// set parses a value of the file or the environment into the field, and reports
// whether it has the right form.
func (f field) set(text string) bool {
	switch v := f.value.Addr().Interface().(type) {
	case *string:
		*v = text
	case *secret.Text:
		*v = secret.New(text)
	case *[]string:
		*v = nil
		if text != "" {
			*v = strings.Split(text, ",")
		}
		for i, item := range *v {
			(*v)[i] = strings.TrimSpace(item)
		}
	case *bool:
		return parsed(v, text, strconv.ParseBool)
	case *int:
		return parsed(v, text, strconv.Atoi)
	case *int64:
		return parsed(v, text, func(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) })
	case *float64:
		return parsed(v, text, func(s string) (float64, error) { return strconv.ParseFloat(s, 64) })
	case *time.Duration:
		return parsed(v, text, time.ParseDuration)
	}
	return true
}

func parsed[T any](into *T, text string, parse func(string) (T, error)) bool {
	v, err := parse(text)
	if err == nil {
		*into = v
	}
	return err == nil
}

// form says which form a value of the type must have.
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
