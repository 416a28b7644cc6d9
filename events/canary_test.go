package events_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey/latchkey/events"
)

// canary stands for a token. No error may repeat it, wherever it stood.
const canary = "eyJCANARYx7Q"

// requireClean checks that an error is of the one kind and repeats no token,
// whichever way it is printed.
func requireClean(t testing.TB, err error, of string) {
	t.Helper()
	var invalid *events.InvalidError
	require.ErrorAs(t, err, &invalid, of)
	for ; err != nil; err = errors.Unwrap(err) {
		require.NotContains(t, fmt.Sprintf("%v %+v %#v %q", err, err, err, err), canary, of)
	}
}

// mutants returns doc with each of its values in turn replaced by every kind
// of JSON that can hold the canary.
func mutants(doc any) []any {
	out := []any{
		canary,
		map[string]any{canary: canary},
		map[string]any{canary: map[string]any{canary: []any{canary}}},
		[]any{canary},
		[]any{[]any{canary}, map[string]any{canary: 1}},
		json.Number("17"), true, nil, "",
	}
	switch doc := doc.(type) {
	case map[string]any:
		for name, value := range doc {
			for _, m := range mutants(value) {
				c := map[string]any{canary: canary}
				for n, v := range doc {
					c[n] = v
				}
				c[name] = m
				out = append(out, c)
			}
		}
	case []any:
		for i, value := range doc {
			for _, m := range mutants(value) {
				c := append([]any{}, doc...)
				c[i] = m
				out = append(out, c)
			}
		}
	}
	return out
}

func TestNoErrorRepeatsAValue(t *testing.T) {
	for name, bodies := range validBodies(t) {
		refused := 0
		for _, body := range bodies {
			var doc any
			require.NoError(t, json.Unmarshal([]byte(body), &doc))
			for _, m := range mutants(doc) {
				b, err := json.Marshal(m)
				require.NoError(t, err)
				if err := decoders[name](b); err != nil {
					refused++
					requireClean(t, err, string(b))
				}
			}
		}
		require.Greater(t, refused, 20, "%s: hardly any mutant was refused", name)
	}
}

// withCanaries fills every string that is no time and no attribute that a
// decoder compares with the canary.
func withCanaries(body string) string {
	for _, s := range []string{"user-1", "at-1", "rt-1", "tt-1", "id-1", "acc-1", "Main", "coinbase", "Coinbase", "/backend", "ce-1"} {
		body = strings.ReplaceAll(body, `"`+s+`"`, `"`+canary+`"`)
	}
	return body
}

// lenient reports whether a decoder takes what is unusable in places that do not
// matter.
func lenient(decoder string) bool { return decoder == "connected" || decoder == "sealed" }

func TestNoErrorRepeatsWhatIsNotJSON(t *testing.T) {
	for name, bodies := range validBodies(t) {
		for _, body := range bodies {
			body := []byte(withCanaries(body))
			for i := range body {
				for kind, broken := range map[string][]byte{
					"cut":       body[:i],
					"not UTF-8": append(append(bytes.Clone(body[:i]), 0xff), body[i:]...),
					"control":   append(append(bytes.Clone(body[:i]), 0x01), body[i:]...),
				} {
					err := decoders[name](broken)
					if err == nil && lenient(name) && kind == "not UTF-8" {
						continue
					}
					require.Error(t, err, "%s at byte %d of %s", kind, i, body)
					requireClean(t, err, kind)
				}
			}
			for kind, broken := range map[string]string{
				"trailing":        string(body) + `{"` + canary + `":1}`,
				"twice":           `{"` + canary + `":1,"` + canary + `":2}`,
				"twice within":    `{"x":{"` + canary + `":1,"` + canary + `":2}}`,
				"deep":            `{"` + canary + `":` + strings.Repeat(`[`, 100_000) + strings.Repeat(`]`, 100_000) + `}`,
				"deep and cut":    `{"` + canary + `":` + strings.Repeat(`{"`+canary+`":`, 100_000),
				"bare":            canary,
				"a string":        `"` + canary + `"`,
				"lone surrogate":  `{"userId":"` + canary + `\ud800"}`,
				"name not UTF-8":  `{"` + canary + "\xff" + `":1}`,
				"unescaped":       "{\"" + canary + "\n\":1}",
				"single quotes":   `{'` + canary + `':1}`,
				"unquoted":        `{` + canary + `:1}`,
				"comment":         `{/* ` + canary + ` */}`,
				"byte order mark": "\ufeff" + string(body),
			} {
				err := decoders[name]([]byte(broken))
				if err == nil && lenient(name) && kind == "byte order mark" {
					continue
				}
				require.Error(t, err, "%s: %s", name, kind)
				requireClean(t, err, kind)
			}
		}
	}
}
