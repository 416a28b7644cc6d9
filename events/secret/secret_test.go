package secret_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/latchkey/latchkey/events/secret"
)

const canary = "canary-7f3a9c"

type xmlHolder struct{ T secret.Text }

type holder struct {
	Token   secret.Text
	Pointer *secret.Text
	Many    []secret.Text
	ByName  map[string]secret.Text
}

func TestNoRouteOfPrintingReachesTheSecret(t *testing.T) {
	s := secret.New(canary)
	h := holder{Token: s, Pointer: &s, Many: []secret.Text{s}, ByName: map[string]secret.Text{"k": s}}

	outputs := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
		outputs["secret "+verb] = fmt.Sprintf(verb, s)
		outputs["pointer "+verb] = fmt.Sprintf(verb, &s)
		outputs["struct "+verb] = fmt.Sprintf(verb, h)
	}
	outputs["error"] = fmt.Errorf("while: %w", errors.New(s.String())).Error()

	marshal := func(name string, b []byte, err error) {
		require.NoError(t, err, name)
		outputs[name] = string(b)
	}
	b, err := json.Marshal(h)
	marshal("json", b, err)
	b, err = yaml.Marshal(h)
	marshal("yaml", b, err)
	b, err = bson.Marshal(h)
	marshal("bson", b, err)
	b, err = xml.Marshal(xmlHolder{s})
	marshal("xml", b, err)

	var buf bytes.Buffer
	slog.New(slog.NewJSONHandler(&buf, nil)).Info("m", "t", s, "h", h)
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&buf), zap.DebugLevel)
	zap.New(core).Info("m", zap.Any("t", s), zap.Any("h", h), zap.Reflect("r", h), zap.Stringer("s", s))
	outputs["loggers"] = buf.String()

	for name, out := range outputs {
		require.NotContains(t, out, canary, name)
		require.NotContains(t, out, fmt.Sprintf("%x", canary), name)
		require.NotContains(t, strings.ToLower(out), fmt.Sprintf("%x", []byte(canary)), name)
	}
	require.Contains(t, outputs["json"], secret.Redacted)
	require.Contains(t, outputs["bson"], secret.Redacted)
	require.Contains(t, outputs["loggers"], secret.Redacted)
}

func TestDecodingKeepsTheSecret(t *testing.T) {
	var h holder
	require.NoError(t, json.Unmarshal([]byte(`{"Token":"`+canary+`"}`), &h))
	require.Equal(t, canary, h.Token.Reveal())
	var y struct{ Token secret.Text }
	require.NoError(t, yaml.Unmarshal([]byte("token: "+canary), &y))
	require.Equal(t, canary, y.Token.Reveal())
}

func TestEqualAndEmpty(t *testing.T) {
	require.True(t, secret.New("a").Equal(secret.New("a")))
	require.False(t, secret.New("a").Equal(secret.New("b")))
	require.False(t, secret.New("a").Equal(secret.New("ab")))
	require.True(t, secret.Text{}.Empty())
	require.Empty(t, secret.Text{}.String())
	require.False(t, secret.New("x").Empty())
}

func TestMaskedShowsFourCharactersAtMost(t *testing.T) {
	require.Equal(t, "****", secret.New("0123456789012345678").Masked())
	require.Equal(t, "****6789", secret.New("01234567890123456789").Masked())
}
