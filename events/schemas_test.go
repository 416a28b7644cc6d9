package events_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/latchkey/latchkey/events"
)

// schemas compiles every schema, by file name.
func schemas(t testing.TB) map[string]*jsonschema.Schema {
	t.Helper()
	names, err := fs.Glob(events.Schemas(), "*")
	require.NoError(t, err)
	require.ElementsMatch(t, []string{
		events.SchemaConnected, events.SchemaDisconnected, events.SchemaRejected, events.SchemaLifecycle, events.SchemaTokenRequest, events.SchemaTokenReply, events.SchemaTokenKeys, events.SchemaMFARequest, events.SchemaMFAReply,
	}, names)
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	out := map[string]*jsonschema.Schema{}
	for _, name := range names {
		b, err := fs.ReadFile(events.Schemas(), name)
		require.NoError(t, err)
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(b)))
		require.NoError(t, err)
		object := doc.(map[string]any)
		require.Equal(t, "https://json-schema.org/draft/2020-12/schema", object["$schema"], name)
		id := object["$id"].(string)
		require.True(t, strings.HasSuffix(id, "/"+name), id)
		require.NoError(t, compiler.AddResource(id, doc))
		out[name], err = compiler.Compile(id)
		require.NoError(t, err)
	}
	return out
}

func validate(t require.TestingT, schema *jsonschema.Schema, body []byte) error {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(body)))
	require.NoError(t, err)
	return schema.Validate(doc)
}

// decoderOf names the decoder of what a schema describes.
var decoderOf = map[string]string{
	events.SchemaConnected:    "connected",
	events.SchemaDisconnected: "disconnected",
	events.SchemaTokenRequest: "token request",
	events.SchemaTokenReply:   "token reply",
	events.SchemaMFARequest:   "mfa request",
}

func TestSchemasAcceptTheExamples(t *testing.T) {
	all := schemas(t)
	for schema, body := range map[string]string{
		events.SchemaConnected:    accessTokenForm,
		events.SchemaDisconnected: disconnectedBody,
		events.SchemaTokenRequest: tokenRequestBody,
		events.SchemaTokenReply:   tokenReplyBody,
	} {
		require.NoError(t, validate(t, all[schema], []byte(body)), schema)
	}
	for _, more := range []struct{ schema, body string }{
		{events.SchemaConnected, delayedAuthForm},
		{events.SchemaConnected, sealedBody},
		{events.SchemaDisconnected, everythingBody},
		{events.SchemaTokenRequest, sealToBody},
		{events.SchemaTokenReply, sealedBody},
		{events.SchemaTokenKeys, tokenKeysBody},
		{events.SchemaMFARequest, mfaRequestBody},
		{events.SchemaMFAReply, `{"grantId":"g1","version":3,"expiresAt":"2031-05-06T07:08:09Z"}`},
	} {
		require.NoError(t, validate(t, all[more.schema], []byte(more.body)), more.body)
	}
}

// message generates what a sender may send by mistake or design: each member
// of a template is now absent, now null, now of another kind, now good.
func message(t *rapid.T, at string, template any) any {
	switch template := template.(type) {
	case map[string]any:
		if rare(t, at) {
			return rapid.SampledFrom([]any{nil, "x", 5, []any{}, map[string]any{}, template}).Draw(t, at)
		}
		out := map[string]any{}
		for _, name := range slices.Sorted(maps.Keys(template)) {
			if !rare(t, at+"."+name+" absent") {
				out[name] = message(t, at+"."+name, template[name])
			}
		}
		return out
	case []any:
		if len(template) == 0 || rare(t, at) {
			return rapid.SampledFrom([]any{nil, "x", 5, []any{}, map[string]any{}, []any{nil}}).Draw(t, at)
		}
		return []any{message(t, at+"[0]", template[0]), template[len(template)-1]}
	}
	if !rare(t, at) {
		return template
	}
	return rapid.SampledFrom([]any{
		nil, "", "x", "a\u202eb", strings.Repeat("x", 301), strings.Repeat("x", 513), "3600", 0, 1, -1, 0.5, true,
		[]any{},
		map[string]any{},
		"2031-05-06T07:08:09Z", "2031-05-06", "2031-13-06T07:08:09Z",
	}).Draw(t, at)
}

// rare keeps about as many messages acceptable as not.
func rare(t *rapid.T, label string) bool { return rapid.IntRange(0, 14).Draw(t, label+"?") == 7 }

// complaint is what a decoder has to say against a body: of a connect also that
// something of it is left out, or that it brings nothing.
func complaint(schema string, body []byte) error {
	if schema != events.SchemaConnected {
		return decoders[decoderOf[schema]](body)
	}
	m, err := events.UnwrapConnected(nil, body)
	if err != nil || m.JWE != "" {
		return err
	}
	c, err := m.Decode()
	switch {
	case err != nil:
		return err
	case len(c.LeftOut) > 0:
		return errors.New(c.LeftOut[0])
	case c.Empty():
		return errors.New("nothing to keep")
	}
	return nil
}

func TestSchemasAndDecodersAgree(t *testing.T) {
	all := schemas(t)
	for schema, bodies := range map[string][]string{
		events.SchemaConnected:    {accessTokenForm, delayedAuthForm, bare(t, accessTokenForm), bare(t, delayedAuthForm)},
		events.SchemaDisconnected: {disconnectedBody, everythingBody},
		events.SchemaTokenRequest: {tokenRequestBody, refusedBody, sealToBody},
		events.SchemaMFARequest:   {mfaRequestBody},
	} {
		for _, body := range bodies {
			var template any
			require.NoError(t, json.Unmarshal([]byte(body), &template))
			accepted, refused := 0, 0
			rapid.Check(t, func(t *rapid.T) {
				b, err := json.Marshal(message(t, "", template))
				require.NoError(t, err)
				bySchema := validate(t, all[schema], b)
				byDecoder := complaint(schema, b)
				require.Equal(t, bySchema == nil, byDecoder == nil, "%s\nschema: %v\ndecoder: %v", b, bySchema, byDecoder)
				if byDecoder == nil {
					accepted++
				} else {
					refused++
				}
			})
			require.NotZero(t, accepted, "%s: only refusals compared", schema)
			require.NotZero(t, refused, "%s: no refusal compared", schema)
		}
	}
}

func TestWhatGoEncodesValidates(t *testing.T) {
	all := schemas(t)
	rapid.Check(t, func(t *rapid.T) {
		reply, err := tokenReplies.Draw(t, "reply").Encode()
		require.NoError(t, err)
		require.NoError(t, validate(t, all[events.SchemaTokenReply], reply))

		body, err := lifecycleEvents.Draw(t, "event").Encode()
		require.NoError(t, err)
		var event struct{ Data json.RawMessage }
		require.NoError(t, json.Unmarshal(body, &event))
		require.NoError(t, validate(t, all[events.SchemaLifecycle], event.Data))

		ttl := rapid.Int64Range(0, 3153600000)
		request, err := json.Marshal(events.TokenRequest{
			UserID: rapid.StringMatching(`[a-z.*> ]{1,20}`).Draw(t, "user"), BrokerType: rapid.String().Draw(t, "broker"),
			AccountID: rapid.String().Draw(t, "account"), MinTTLSeconds: rapid.Ptr(ttl, true).Draw(t, "ttl"),
		})
		require.NoError(t, err)
		require.NoError(t, validate(t, all[events.SchemaTokenRequest], request))
	})
	empty, err := events.TokenReply{}.Encode()
	require.NoError(t, err)
	require.NoError(t, validate(t, all[events.SchemaTokenReply], empty))
}

func TestSchemasRefuse(t *testing.T) {
	all := schemas(t)
	type object = map[string]any
	var lifecycle struct{ Data json.RawMessage }
	require.NoError(t, json.Unmarshal([]byte(lifecycleBody), &lifecycle))
	data := string(lifecycle.Data)
	token := func(change object) string { return edited(t, tokenReplyBody, change, "accessTokens", 0) }
	require.NoError(t, validate(t, all[events.SchemaLifecycle], []byte(data)))
	for _, c := range []struct{ schema, body string }{
		{events.SchemaLifecycle, edited(t, data, object{"reason": 5})},
		{events.SchemaLifecycle, edited(t, data, object{"version": 0})},
		{events.SchemaLifecycle, edited(t, data, object{"accounts": nil})},
		{events.SchemaLifecycle, edited(t, data, object{"expiresAt": "soon"})},
		{events.SchemaLifecycle, edited(t, data, object{"userId": ""})},
		{events.SchemaTokenReply, token(object{"accessToken": nil})},
		{events.SchemaTokenReply, token(object{"accessToken": ""})},
		{events.SchemaTokenReply, token(object{"accountName": nil})},
		{events.SchemaTokenReply, edited(t, tokenReplyBody, object{"expiries": nil})},
		{events.SchemaTokenReply, edited(t, tokenReplyBody, object{"code": 5}, "unavailable", 0)},
		{events.SchemaTokenReply, edited(t, tokenReplyBody, object{"expiresAt": "soon"}, "expiries", 0)},
		{events.SchemaTokenReply, edited(t, tokenReplyBody, object{"version": "3"}, "expiries", 0)},
		{events.SchemaTokenReply, edited(t, tokenReplyBody, object{"outcome": ""}, "refused", 0)},

		{events.SchemaConnected, edited(t, accessTokenForm, object{"expiresInSeconds": -1}, "payload", "accessToken")},
		{events.SchemaConnected, edited(t, accessTokenForm, object{"accountTokens": []any{}}, "payload", "accessToken")},
		{events.SchemaConnected, edited(t, accessTokenForm, object{"accessToken": nil, "refreshToken": "", "tokenId": nil}, "payload", "accessToken", "accountTokens", 0)},
		{events.SchemaConnected, edited(t, accessTokenForm, object{"userId": "a\u202eb"})},
		{events.SchemaConnected, edited(t, accessTokenForm, object{"payload": object{"accessToken": []any{}}})},
		{events.SchemaConnected, edited(t, delayedAuthForm, object{"refreshToken": ""}, "payload", "delayedAuth")},
		{events.SchemaConnected, `{"sealed":null}`},
		{events.SchemaConnected, `{"sealed":""}`},
		{events.SchemaConnected, `{"sealed":{}}`},
		{events.SchemaConnected, edited(t, accessTokenForm, object{"sealed": "x"})},
		{events.SchemaConnected, `{"sealed":"x","userId":"u"}`},
		{events.SchemaTokenRequest, edited(t, sealToBody, object{"d": "x"}, "sealTo")},
		{events.SchemaTokenRequest, edited(t, sealToBody, object{"k": 7}, "sealTo")},
		{events.SchemaTokenRequest, edited(t, sealToBody, object{"kty": "RSA"}, "sealTo")},
		{events.SchemaTokenRequest, edited(t, sealToBody, object{"crv": "P-384"}, "sealTo")},
		{events.SchemaTokenRequest, edited(t, sealToBody, object{"use": "sig"}, "sealTo")},
		{events.SchemaTokenRequest, edited(t, sealToBody, object{"alg": "ECDH-ES"}, "sealTo")},
		{events.SchemaTokenRequest, edited(t, sealToBody, object{"x": keyX[1:]}, "sealTo")},
		{events.SchemaTokenRequest, edited(t, sealToBody, object{"y": keyY[:42] + "N"}, "sealTo")},
		{events.SchemaTokenKeys, `{"keys":[]}`},
		{events.SchemaTokenReply, `{"sealed":"x","accessTokens":[],"expiries":[]}`},
		{events.SchemaDisconnected, edited(t, disconnectedBody, object{"userId": nil})},
		{events.SchemaDisconnected, edited(t, disconnectedBody, object{"disconnectedAt": "yesterday"})},
		{events.SchemaDisconnected, edited(t, disconnectedBody, object{"disconnectedAt": "0001-01-01T00:00:00Z"})},
		{events.SchemaDisconnected, edited(t, disconnectedBody, object{"broker_type": "kraken"})},
		{events.SchemaDisconnected, edited(t, disconnectedBody, object{"everything": true})},
		{events.SchemaDisconnected, `{"userId":"u"}`},
		{events.SchemaTokenRequest, `{"userId":"u","minTtlSeconds":5}`},
		{events.SchemaTokenRequest, edited(t, tokenRequestBody, object{"minTTLSeconds": -1})},
		{events.SchemaTokenRequest, edited(t, tokenRequestBody, object{"minTTLSeconds": 3153600001})},
	} {
		if decoder := decoderOf[c.schema]; decoder != "" && c.schema != events.SchemaTokenReply {
			require.Error(t, complaint(c.schema, []byte(c.body)), c.body)
		}
		require.Error(t, validate(t, all[c.schema], []byte(c.body)), c.body)
	}
}

// enumOf returns the words that a schema lists at a place; another string is taken too.
func enumOf(t *testing.T, schema string, at ...string) (words []string) {
	t.Helper()
	b, err := fs.ReadFile(events.Schemas(), schema)
	require.NoError(t, err)
	var node any
	require.NoError(t, json.Unmarshal(b, &node))
	for _, name := range append(at, "anyOf") {
		node = node.(map[string]any)[name]
		require.NotNil(t, node, "%s of %v", name, at)
	}
	choices := node.([]any)
	require.Len(t, choices, 2)
	require.Equal(t, "string", choices[1].(map[string]any)["type"])
	for _, word := range choices[0].(map[string]any)["enum"].([]any) {
		words = append(words, word.(string))
	}
	return words
}

// TestSchemasListTheWords: those that a schema repeats must not drift from the Go code.
func TestSchemasListTheWords(t *testing.T) {
	var all []string
	for _, r := range reasons {
		all = append(all, string(r))
	}
	unavailable := []string{"else", "properties", "unavailable", "items", "properties"}
	require.ElementsMatch(t, all, enumOf(t, events.SchemaLifecycle, "properties", "reason"))
	require.ElementsMatch(t, all, enumOf(t, events.SchemaTokenReply, append(unavailable, "reason")...))
	require.ElementsMatch(t, slices.Collect(maps.Keys(events.CodeNumber)), enumOf(t, events.SchemaTokenReply, append(unavailable, "code")...))
	require.ElementsMatch(t, events.RefusedOutcomes, enumOf(t, events.SchemaTokenReply, "else", "properties", "refused", "items", "properties", "outcome"))
	all = nil
	for _, r := range events.RejectedReasons {
		all = append(all, string(r))
	}
	require.ElementsMatch(t, all, enumOf(t, events.SchemaRejected, "properties", "reason"))
}

// TestSchemasTakeWordsThatAreNotListed: the documentation promises that some are added.
func TestSchemasTakeWordsThatAreNotListed(t *testing.T) {
	all := schemas(t)
	type object = map[string]any
	var lifecycle struct{ Data json.RawMessage }
	require.NoError(t, json.Unmarshal([]byte(lifecycleBody), &lifecycle))
	require.NoError(t, validate(t, all[events.SchemaLifecycle], []byte(edited(t, string(lifecycle.Data), object{"reason": "new"}))))
	require.NoError(t, validate(t, all[events.SchemaRejected], []byte(`{"userId":"u","reason":"new"}`)))
	require.NoError(t, validate(t, all[events.SchemaTokenReply], []byte(edited(t, tokenReplyBody, object{"code": "new", "reason": "new"}, "unavailable", 0))))
	require.NoError(t, validate(t, all[events.SchemaTokenReply], []byte(edited(t, tokenReplyBody, object{"outcome": "new"}, "refused", 0))))
}
