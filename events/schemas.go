package events

import (
	"embed"
	"io/fs"
)

//go:embed schemas/*.json
var schemaFiles embed.FS

// Names of the files in Schemas.
const (
	SchemaConnected    = "integration.connected.json"
	SchemaDisconnected = "integration.disconnected.json"
	SchemaRejected     = "integration.rejected.json"
	SchemaLifecycle    = "token.lifecycle.json"
	SchemaTokenRequest = "token.get.request.json"
	SchemaTokenReply   = "token.get.reply.json"
	SchemaTokenKeys    = "token.keys.reply.json"
	SchemaMFARequest   = "token.mfa.request.json"
	SchemaMFAReply     = "token.mfa.reply.json"
)

// Schemas returns the JSON Schemas (draft 2020-12) of the public messages. For a message
// that may be a CloudEvent, the schema describes the data.
//
// The decoders are stricter: they count bytes where a schema counts characters, limit
// the years of a time, and refuse 60.0 for an integer, numbers outside float64 and
// points that are not on the curve.
func Schemas() fs.FS {
	sub, err := fs.Sub(schemaFiles, "schemas")
	if err != nil {
		panic(err) // only if the path is malformed
	}
	return sub
}
