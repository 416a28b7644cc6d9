package meshsim

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"regexp"
	"unicode/utf16"
	"unicode/utf8"
)

// bodyDialects are the ways in which an answer becomes bytes and is sent. No token in
// it is lost: where the body is cut, it is cut behind the last one.
var bodyDialects = []Dialect{
	{Name: "duplicateNullFirst", On: OnTokens, Says: "The content comes twice, and null before the real one.",
		wire: func(d *draft) { d.body = replaced(d.body, `"content":{`, `"content":null,"content":{`) }},
	{Name: "duplicateNullLast", On: OnTokens, Says: "The content comes twice, and null after the real one.",
		wire: func(d *draft) { d.body = append(d.body[:len(d.body)-1], `,"content":null}`...) }},
	{Name: "duplicateTokens", On: OnTokens, Says: "Each token comes twice, and null after the real one.",
		wire: func(d *draft) {
			d.body = tokenMember.ReplaceAll(d.body, []byte(`$0,"$1":null`))
		}},
	{Name: "junkBefore", On: OnTokens, Says: "There is junk in front of the JSON.", wire: func(d *draft) { d.body = append([]byte(")]}',\n"), d.body...) }},
	{Name: "junkAfter", On: OnTokens, Says: "There is junk behind the JSON.", wire: func(d *draft) { d.body = append(d.body, "\n<!-- served by gw-7 -->\n"...) }},
	{Name: "cutBody", On: OnTokens, Says: "The body ends behind the last token, and Content-Length agrees with what is sent.", wire: func(d *draft) { cut(d) }},
	{Name: "cutConnection", On: OnTokens, Says: "The connection closes behind the last token, and Content-Length is that of the whole body.", wire: func(d *draft) { d.missing = cut(d) }},
	{Name: "cutChunks", On: OnTokens, Says: "The body comes in chunks, and the connection closes behind the last token.", wire: func(d *draft) { cut(d); d.unending = true }},
	{Name: "byteOrderMark", On: OnRefresh, Says: "The body begins with the byte order mark of UTF-8.", wire: func(d *draft) { d.body = append([]byte("\ufeff"), d.body...) }},
	{Name: "utf16", On: OnRefresh, Says: "The body is UTF-16 with a byte order mark, little end first, and Content-Type says UTF-16.",
		wire: func(d *draft) {
			asUTF16(d, binary.LittleEndian)
			d.header.Set("Content-Type", "application/json; charset=utf-16")
		}},
	{Name: "utf16BigEndian", On: OnRefresh, Says: "The body is UTF-16 with a byte order mark, big end first, and Content-Type says UTF-8.",
		wire: func(d *draft) { asUTF16(d, binary.BigEndian) }},
	{Name: "wrongContentType", On: OnRefresh, Says: "Content-Type says text/html.", wire: func(d *draft) { d.header.Set("Content-Type", "text/html") }},
	{Name: "gzip", On: OnRefresh, Says: "The body is compressed with gzip, asked for or not.",
		wire: func(d *draft) {
			var out bytes.Buffer
			z := gzip.NewWriter(&out)
			_, _ = z.Write(d.body) // a buffer takes everything
			_ = z.Close()
			d.body = out.Bytes()
			d.header.Set("Content-Encoding", "gzip")
		}},
}

func replaced(body []byte, what, by string) []byte {
	return bytes.Replace(body, []byte(what), []byte(by), 1)
}

// tokenMember is a member of an answer with a token of this simulator.
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
func asUTF16(d *draft, order interface {
	binary.ByteOrder
	binary.AppendByteOrder
}) {
	if !utf8.Valid(d.body) {
		return
	}
	out := make([]byte, 2)
	order.PutUint16(out, 0xfeff)
	for _, unit := range utf16.Encode([]rune(string(d.body))) {
		out = order.AppendUint16(out, unit)
	}
	d.body = out
}
