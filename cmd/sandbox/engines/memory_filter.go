package engines

import (
	"bytes"
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// matches reports whether a document fits a filter, as MongoDB does for the operators that it knows.
func matches(doc, filter bsoncore.Document) (bool, error) {
	conditions, err := filter.Elements()
	if err != nil {
		return false, err
	}
	for _, condition := range conditions {
		var ok bool
		switch key := condition.Key(); key {
		case "$and", "$or":
			ok, err = matchesParts(doc, condition.Value(), key == "$and")
		default:
			if strings.HasPrefix(key, "$") {
				return false, fmt.Errorf("unknown operator %s", key)
			}
			ok, err = fits(fieldValues(doc, key), condition.Value())
		}
		if !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func matchesParts(doc bsoncore.Document, filters bsoncore.Value, all bool) (bool, error) {
	list, ok := filters.ArrayOK()
	if !ok {
		return false, fmt.Errorf("a list of filters is none")
	}
	parts, err := list.Values()
	if err != nil {
		return false, err
	}
	for _, part := range parts {
		filter, ok := part.DocumentOK()
		if !ok {
			return false, fmt.Errorf("a filter is no document")
		}
		if ok, err := matches(doc, filter); err != nil || ok != all {
			return ok, err
		}
	}
	return all, nil
}

// fieldValues returns what a field holds: nothing, a value, or a list with its values.
func fieldValues(doc bsoncore.Document, path string) []bsoncore.Value {
	v, err := doc.LookupErr(strings.Split(path, ".")...)
	if err != nil {
		return nil
	}
	values := []bsoncore.Value{v}
	if list, ok := v.ArrayOK(); ok {
		more, _ := list.Values() // fails for a document that its client could not have encoded
		values = append(values, more...)
	}
	return values
}

// fits reports whether what a field holds fits a condition.
func fits(values []bsoncore.Value, condition bsoncore.Value) (bool, error) {
	operators, ok := condition.DocumentOK()
	if !ok {
		return isAny(values, condition), nil
	}
	elements, err := operators.Elements()
	if err != nil {
		return false, err
	}
	if len(elements) == 0 || !strings.HasPrefix(elements[0].Key(), "$") {
		return isAny(values, condition), nil
	}
	for _, e := range elements {
		if ok, err := fitsOperator(values, e.Key(), e.Value()); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func fitsOperator(values []bsoncore.Value, operator string, v bsoncore.Value) (bool, error) {
	compares := func(accept func(order int) bool) bool {
		return slices.ContainsFunc(values, func(value bsoncore.Value) bool {
			order, ordered := compareValues(value, v)
			return ordered && accept(order)
		})
	}
	switch operator {
	case "$eq":
		return isAny(values, v), nil
	case "$ne":
		return !isAny(values, v), nil
	case "$in", "$nin":
		list, ok := v.ArrayOK()
		if !ok {
			return false, fmt.Errorf("%s needs a list", operator)
		}
		wanted, err := list.Values()
		found := slices.ContainsFunc(wanted, func(v bsoncore.Value) bool { return isAny(values, v) })
		return found == (operator == "$in"), err
	case "$lt":
		return compares(func(order int) bool { return order < 0 }), nil
	case "$lte":
		return compares(func(order int) bool { return order <= 0 }), nil
	case "$gt":
		return compares(func(order int) bool { return order > 0 }), nil
	case "$gte":
		return compares(func(order int) bool { return order >= 0 }), nil
	case "$regex":
		pattern, err := regexp.Compile(v.StringValue())
		return err == nil && slices.ContainsFunc(values, func(value bsoncore.Value) bool {
			text, ok := value.StringValueOK()
			return ok && pattern.MatchString(text)
		}), err
	}
	return false, fmt.Errorf("unknown operator %s", operator)
}

// isAny reports whether a field holds a value. Null is also what a missing field holds.
func isAny(values []bsoncore.Value, v bsoncore.Value) bool {
	if v.Type == bsoncore.TypeNull && len(values) == 0 {
		return true
	}
	return slices.ContainsFunc(values, func(value bsoncore.Value) bool {
		if order, ordered := compareValues(value, v); ordered {
			return order == 0
		}
		return value.Type == v.Type && bytes.Equal(value.Data, v.Data)
	})
}

// compareValues compares values of one kind that has an order.
func compareValues(a, b bsoncore.Value) (order int, ordered bool) {
	switch {
	case a.IsNumber() && b.IsNumber():
		return cmp.Compare(number(a), number(b)), true
	case a.Type != b.Type:
		return 0, false
	case a.Type == bsoncore.TypeString:
		return cmp.Compare(a.StringValue(), b.StringValue()), true
	case a.Type == bsoncore.TypeDateTime:
		return cmp.Compare(a.DateTime(), b.DateTime()), true
	case a.Type == bsoncore.TypeBoolean && a.Boolean() == b.Boolean():
		return 0, true
	}
	return 0, false
}

// number returns a number as far as a float64 holds it, which is enough for counters.
func number(v bsoncore.Value) float64 {
	if f, ok := v.DoubleOK(); ok {
		return f
	}
	return float64(v.AsInt64())
}
