package meshsim

import (
	"io"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/latchkey/latchkey/events/secret"
)

// The simulator's own JSON writes durations as Go does: "1h30m0s".
var (
	durationOut = json.MarshalToFunc(func(enc *jsontext.Encoder, d time.Duration) error {
		return enc.WriteToken(jsontext.String(d.String()))
	})
	durationIn = json.UnmarshalFromFunc(func(dec *jsontext.Decoder, d *time.Duration) error {
		t, err := dec.ReadToken()
		if err != nil {
			return err
		}
		*d, err = time.ParseDuration(t.String())
		return err
	})
	// secretOut reveals tokens. An empty token is null.
	secretOut = json.MarshalToFunc(func(enc *jsontext.Encoder, t secret.Text) error {
		if t.Empty() {
			return enc.WriteToken(jsontext.Null)
		}
		return enc.WriteToken(jsontext.String(t.Reveal()))
	})
)

// encode writes what is safe to keep: secrets are redacted.
func encode(w io.Writer, v any) error {
	return json.MarshalWrite(w, v, json.WithMarshalers(durationOut))
}

func decode(r io.Reader, into any, more ...json.Options) error {
	return json.UnmarshalRead(r, into, append(more, json.WithUnmarshalers(durationIn))...)
}

// onTheWire encodes an answer to a client, with its tokens.
func onTheWire(v any) ([]byte, error) {
	return json.Marshal(v, json.WithMarshalers(json.JoinMarshalers(secretOut, durationOut)), json.FormatNilSliceAsNull(true), json.Deterministic(true))
}
