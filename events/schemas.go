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

// Schemas holds the JSON Schemas (draft 2020-12) of the messages that cross
// the border of Latchkey. Where a message may be a CloudEvent, the schema is
// that of its data.
//
// The decoders are the stricter: they count bytes where a schema counts
// characters, bound the years of a time, and refuse 60.0 for an integer, numbers that no
// float64 holds and points that lie on no curve. In all else the two agree.
func Schemas() fs.FS {
	sub, err := fs.Sub(schemaFiles, "schemas")
	if err != nil {
		panic(err) // only for a malformed path
	}
	return sub
}
