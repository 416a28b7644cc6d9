package config

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/goccy/go-yaml/ast"
)

// readSection reads a mapping into the fields of a section. Decision 45 says why it
// walks the syntax tree.
func (l *loader) readSection(node ast.Node, key string, section reflect.Value) {
	values, ok := entries(node)
	if !ok {
		l.faults = append(l.faults, Fault{Key: key, Problem: form(section.Type()) + line(node)})
		return
	}
	members := children(key, section)
	seen := map[string]bool{}
	for _, value := range values {
		name := keyName(value)
		i := slices.IndexFunc(members, func(f field) bool { return f.tag == name })
		switch {
		case i < 0:
			l.unknownKey(value, key, members)
		case seen[name]:
			l.faults.add(members[i].key, "must be given only once%s", line(value))
		default:
			l.readValue(value.Value, members[i])
		}
		seen[name] = true
	}
}

func (l *loader) readValue(node ast.Node, f field) {
	switch {
	case f.key == brokersKey:
		l.brokers = node
	case f.value.Kind() == reflect.Pointer: // a broker's margin
		margin := l.config.Refresh.AccessToken
		if f.tag == "refresh_token" {
			margin = l.config.Refresh.RefreshToken
		}
		f.value.Set(reflect.ValueOf(&margin))
		l.readSection(node, f.key, f.value.Elem())
	case isSection(f.value.Type()):
		l.readSection(node, f.key, f.value)
	case !readLeaf(node, f):
		l.faults.add(f.key, "%s%s", form(f.value.Type()), line(node))
	}
}

// readLeaf sets a field from a scalar, or a list from a sequence of scalars.
func readLeaf(node ast.Node, f field) bool {
	if f.value.Kind() != reflect.Slice {
		text, ok := scalar(node)
		return ok && f.set(text)
	}
	sequence, ok := node.(*ast.SequenceNode)
	if !ok {
		return false
	}
	list := make([]string, len(sequence.Values))
	for i, value := range sequence.Values {
		if list[i], ok = scalar(value); !ok {
			return false
		}
	}
	f.value.Set(reflect.ValueOf(list))
	return true
}

// readBrokers reads the policies of the broker types.
func (l *loader) readBrokers() {
	if l.brokers == nil {
		return
	}
	values, ok := entries(l.brokers)
	if !ok {
		l.faults.add(brokersKey, "must be a mapping of broker types%s", line(l.brokers))
		return
	}
	refresh := &l.config.Refresh
	refresh.Brokers = make(map[string]BrokerPolicy, len(values))
	for _, value := range values {
		broker := keyName(value)
		if !brokerType.MatchString(broker) {
			l.faults.add(brokersKey, "%s%s", brokerTypeForm, line(value))
			continue
		}
		if _, twice := refresh.Brokers[broker]; twice {
			l.faults.add(brokerKey(broker), "must be given only once%s", line(value))
			continue
		}
		var policy BrokerPolicy
		l.readSection(value.Value, brokerKey(broker), reflect.ValueOf(&policy).Elem())
		refresh.Brokers[broker] = policy
	}
}

func (l *loader) unknownKey(value *ast.MappingValueNode, section string, members []field) {
	known := make([]string, len(members))
	for i, f := range members {
		known[i] = f.tag
	}
	name := keyName(value)
	l.faults = append(l.faults, Fault{
		Key:     section,
		Problem: "unknown key" + shown(name) + line(value) + suggestion(name, known),
	})
}

// entries returns the members of a mapping; null is an empty one.
func entries(node ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	case *ast.NullNode:
		return nil, true
	}
	return nil, false
}

func keyName(value *ast.MappingValueNode) string {
	name, _ := scalar(value.Key)
	return name
}

// scalar returns a scalar as written, so that a secret of digits keeps its digits.
func scalar(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func line(node ast.Node) string {
	if token := node.GetToken(); token != nil && token.Position != nil {
		return at(token.Position.Line)
	}
	return ""
}

func at(line int) string { return fmt.Sprintf(" (line %d)", line) }
