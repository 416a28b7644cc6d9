package meshsim

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"regexp"
	"unicode/utf16"
	"unicode/utf8"
)

// bodyDialects change how an answer becomes bytes and is sent. None loses a token: a
// body is cut behind the last one.
var bodyDialects = []Dialect{
	sends(OnTokens, "duplicateNullFirst", "The content comes twice, and null before the real one.",
		func(d *draft) { d.body = replaceFirst(d.body, `"content":{`, `"content":null,"content":{`) }),
	sends(OnTokens, "duplicateNullLast", "The content comes twice, and null after the real one.",
		func(d *draft) { d.body = append(d.body[:len(d.body)-1], `,"content":null}`...) }),
	sends(OnTokens, "duplicateTokens", "Each token comes twice, and null after the real one.",
		func(d *draft) { d.body = tokenMember.ReplaceAll(d.body, []byte(`$0,"$1":null`)) }),
	sends(OnTokens, "junkBefore", "There is junk in front of the JSON.", func(d *draft) { d.body = append([]byte(")]}',\n"), d.body...) }),
	sends(OnTokens, "junkAfter", "There is junk behind the JSON.", func(d *draft) { d.body = append(d.body, "\n<!-- served by gw-7 -->\n"...) }),
	sends(OnTokens, "cutBody", "The body ends behind the last token, and Content-Length agrees with what is sent.", func(d *draft) { cut(d) }),
	sends(OnTokens, "cutConnection", "The connection closes behind the last token, and Content-Length is that of the whole body.", func(d *draft) { d.missing = cut(d) }),
	sends(OnTokens, "cutChunks", "The body comes in chunks, and the connection closes behind the last token.", func(d *draft) { cut(d); d.unending = true }),
	sends(OnRefresh, "byteOrderMark", "The body begins with the byte order mark of UTF-8.", func(d *draft) { d.body = append([]byte("\ufeff"), d.body...) }),
	sends(OnRefresh, "utf16", "The body is UTF-16 with a byte order mark, little end first, and Content-Type says UTF-16.",
		func(d *draft) {
			asUTF16(d, binary.LittleEndian)
			d.header.Set("Content-Type", "application/json; charset=utf-16")
		}),
	sends(OnRefresh, "utf16BigEndian", "The body is UTF-16 with a byte order mark, big end first, and Content-Type says UTF-8.",
		func(d *draft) { asUTF16(d, binary.BigEndian) }),
	sends(OnRefresh, "wrongContentType", "Content-Type says text/html.", func(d *draft) { d.header.Set("Content-Type", "text/html") }),
	sends(OnRefresh, "gzip", "The body is compressed with gzip, asked for or not.",
		func(d *draft) {
			var out bytes.Buffer
			z := gzip.NewWriter(&out)
			_, _ = z.Write(d.body) // a buffer takes everything
			_ = z.Close()
			d.body = out.Bytes()
			d.header.Set("Content-Encoding", "gzip")
		}),
}

func replaceFirst(body []byte, what, by string) []byte {
	return bytes.Replace(body, []byte(what), []byte(by), 1)
}

// tokenMember matches a member of an answer that holds a token of this simulator.
var tokenMember = regexp.MustCompile(`"(\w+)":"sim-[^"]*"`)

// cut ends a body behind the quotation mark of the last token, and returns how many
// bytes that leaves out. A body without a token stays as it is.
func cut(d *draft) (left int) {
	tokens := tokenMember.FindAllIndex(d.body, -1)
	if len(tokens) == 0 {
		return 0
	}
	end := tokens[len(tokens)-1][1]
	left = len(d.body) - end
	d.body = d.body[:end]
	return left
}

// asUTF16 encodes a body, unless it is encoded already.
func asUTF16(d *draft, order binary.ByteOrder) {
	if utf8.Valid(d.body) {
		d.body, _ = binary.Append(nil, order, utf16.Encode([]rune("\ufeff"+string(d.body)))) // a list of numbers always fits
	}
}
