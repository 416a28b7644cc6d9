package secret_test

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime"
	"strings"
	"testing"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/latchkey/latchkey/events/secret"
)

const canary = "canary-7f3a9c"

// carrier has secrets in all places, among them those whose methods nobody who
// prints may call.
type carrier struct {
	Token   secret.Text
	Pointer *secret.Text
	Many    []secret.Text
	Array   [1]secret.Text
	ByName  map[string]secret.Text
	Any     any
	Inner   struct{ Token secret.Text }
	hidden  secret.Text
	pointer *secret.Text
	many    []secret.Text
	byName  map[string]secret.Text
	bySelf  map[secret.Text]int
	any     any
	inner   struct{ token secret.Text }
}

func carry(s secret.Text) *carrier {
	c := &carrier{
		Token: s, Pointer: &s, Many: []secret.Text{s}, Array: [1]secret.Text{s}, ByName: map[string]secret.Text{"k": s}, Any: s,
		hidden: s, pointer: &s, many: []secret.Text{s}, byName: map[string]secret.Text{"k": s}, bySelf: map[secret.Text]int{s: 1}, any: s,
	}
	c.Inner.Token, c.inner.token = s, s
	return c
}

// carrierError is an error with a secret that its text does not use.
type carrierError struct{ token secret.Text }

func (carrierError) Error() string { return "failed" }

// recorder is a test that only keeps what is reported to it.
type recorder struct{ bytes.Buffer }

func (r *recorder) Errorf(format string, args ...any) { fmt.Fprintf(r, format, args...) }

// failing is what a test library shows of two values that differ.
func failing(a, b any) string {
	var r recorder
	assert.Equal(&r, a, b)
	return r.String()
}

// requireClean looks for the secret in every form that a printer could give it.
func requireClean(t *testing.T, where, out string) {
	t.Helper()
	low := strings.ToLower(out)
	for form, trace := range map[string]string{
		"text": canary, "hex": hex.EncodeToString([]byte(canary)), "hex with spaces": fmt.Sprintf("% x", canary),
		"hex in Go": strings.Trim(fmt.Sprintf("%# x", canary), " "), "numbers": strings.Trim(fmt.Sprint([]byte(canary)), "[]"),
		"base64": strings.ToLower(base64.StdEncoding.EncodeToString([]byte(canary))[:12]),
	} {
		require.NotContains(t, low, trace, "%s, as %s", where, form)
	}
}

func TestNoRouteOfPrintingReachesTheSecret(t *testing.T) {
	s := secret.New(canary)
	c := carry(s)
	values := map[string]any{
		"secret": s, "pointer": &s, "struct": *c, "pointer to struct": c, "slice": []secret.Text{s}, "slice of structs": []carrier{*c},
		"map": map[string]secret.Text{"k": s}, "map of pointers": map[string]*carrier{"k": c}, "key of a map": map[secret.Text]bool{s: true},
		"error": carrierError{s}, "wrapped error": fmt.Errorf("while: %w", &carrierError{s}), "joined error": errors.Join(carrierError{s}),
		"reflected": reflect.ValueOf(*c), "array": [2]secret.Text{s, s}, "unexported only": struct{ t secret.Text }{s},
	}
	verbs := []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%c", "%U", "%t", "%e", "%p", "%T", "%10.3s", "%!"}
	core := func(buf *bytes.Buffer, encoder func(zapcore.EncoderConfig) zapcore.Encoder) *zap.Logger {
		return zap.New(zapcore.NewCore(encoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(buf), zap.DebugLevel))
	}
	for name, v := range values {
		outputs := map[string]string{"print": fmt.Sprint(v), "println": fmt.Sprintln("x", v), "diff": failing(v, "other") + failing(v, *carry(secret.New("other")))}
		for _, verb := range verbs {
			outputs[verb] = fmt.Sprintf(verb, v)
		}
		var slogged, zapped bytes.Buffer
		slog.New(slog.NewJSONHandler(&slogged, nil)).Info("m", "v", v, slog.Any("any", v), slog.Group("g", "v", v))
		slog.New(slog.NewTextHandler(&slogged, nil)).Info("m", "v", v, slog.Any("any", v), slog.Group("g", "v", v))
		for _, encoder := range []func(zapcore.EncoderConfig) zapcore.Encoder{zapcore.NewJSONEncoder, zapcore.NewConsoleEncoder} {
			log := core(&zapped, encoder)
			log.Info("m", zap.Any("any", v), zap.Reflect("reflect", v), zap.Stringer("s", s), zap.Namespace("n"), zap.Any("any", v))
			log.Sugar().Infow("m", "v", v)
			log.Sugar().Infof("%v %+v %#v", v, v, v)
		}
		outputs["slog"], outputs["zap"] = slogged.String(), zapped.String()
		// Encoders that can't take a value may say so, but not with the secret.
		note := func(encoder string, b []byte, err error) { outputs[encoder] = fmt.Sprintf("%s %+v", b, err) }
		b, err := json.Marshal(v)
		note("json", b, err)
		b, err = jsonv2.Marshal(v)
		note("go-json-experiment", b, err)
		b, err = yaml.Marshal(v)
		note("yaml", b, err)
		b, err = bson.Marshal(map[string]any{"v": v})
		note("bson", b, err)
		b, err = bson.MarshalExtJSON(map[string]any{"v": v}, false, false)
		note("extended JSON", b, err)
		b, err = xml.Marshal(v)
		note("xml", b, err)
		var gobbed bytes.Buffer
		err = gob.NewEncoder(&gobbed).Encode(v)
		note("gob", gobbed.Bytes(), err)
		for route, out := range outputs {
			requireClean(t, name+" by "+route, out)
		}
	}
}

// The routes do print something, in place of the secret.
func TestWhatIsPrintedInstead(t *testing.T) {
	s := secret.New(canary)
	type pair struct {
		Token secret.Text
		Many  []secret.Text
	}
	h := pair{s, []secret.Text{s}}
	marshal := func(b []byte, err error) string {
		require.NoError(t, err)
		return string(b)
	}
	for name, out := range map[string]string{
		"fmt": fmt.Sprintf("%v", h), "json": marshal(json.Marshal(h)), "go-json-experiment": marshal(jsonv2.Marshal(h)),
		"yaml": marshal(yaml.Marshal(h)), "bson": marshal(bson.Marshal(h)), "xml": marshal(xml.Marshal(h)),
	} {
		require.Equal(t, 2, strings.Count(out, secret.Redacted), "%s: %s", name, out)
	}
	require.Empty(t, fmt.Sprint(secret.Text{}))
	require.Equal(t, "secret.Text{"+secret.Redacted+"}", s.GoString())
}

func TestDecodingKeepsTheSecret(t *testing.T) {
	var h struct{ Token secret.Text }
	require.NoError(t, json.Unmarshal([]byte(`{"Token":"`+canary+`"}`), &h))
	require.Equal(t, canary, h.Token.Reveal())
	require.NoError(t, json.Unmarshal([]byte(`{"Token":""}`), &h))
	require.True(t, h.Token.Empty())
	require.NoError(t, jsonv2.Unmarshal([]byte(`{"Token":"`+canary+`"}`), &h))
	require.Equal(t, canary, h.Token.Reveal())
	var y struct{ Token secret.Text }
	require.NoError(t, yaml.Unmarshal([]byte("token: "+canary), &y))
	require.Equal(t, canary, y.Token.Reveal())
}

func TestEqualAndEmpty(t *testing.T) {
	require.True(t, secret.New("a").Equal(secret.New("a")))
	require.False(t, secret.New("a").Equal(secret.New("b")))
	require.False(t, secret.New("a").Equal(secret.New("ab")))
	require.False(t, secret.New("a").Equal(secret.Text{}))
	require.True(t, secret.New("").Equal(secret.Text{}))
	require.True(t, secret.Text{}.Empty())
	require.True(t, secret.New("").Empty())
	require.Empty(t, secret.Text{}.String())
	require.Empty(t, secret.Text{}.Reveal())
	require.False(t, secret.New("x").Empty())
}

// Comparing by ==, as keys and by reflection compares the characters, however
// the texts came about and whatever the collector did between.
func TestComparisonIsByCharacters(t *testing.T) {
	byText := map[secret.Text]int{}
	var kept []secret.Text
	for i := range 2000 {
		s := fmt.Sprint(canary, i)
		kept = append(kept, secret.New(s))
		byText[secret.New(strings.Clone(s))] = i
		for range 10 {
			secret.New(fmt.Sprint("forgotten", i))
		}
		if i%500 == 0 {
			runtime.GC()
		}
	}
	for i, text := range kept {
		s := fmt.Sprint(canary, i)
		require.Equal(t, s, text.Reveal())
		require.True(t, text == secret.New(s)) //nolint:testifylint // the operator is meant
		require.True(t, reflect.DeepEqual(text, secret.New(s)))
		require.Equal(t, i, byText[text])
	}
	require.False(t, kept[0] == kept[1]) //nolint:testifylint // likewise
	require.False(t, reflect.DeepEqual(kept[0], kept[1]))
	require.True(t, secret.New("") == secret.Text{}) //nolint:testifylint // likewise
}

func TestMaskedShowsFourCharactersAtMost(t *testing.T) {
	require.Equal(t, "****", secret.New("0123456789012345678").Masked())
	require.Equal(t, "****6789", secret.New("01234567890123456789").Masked())
}
