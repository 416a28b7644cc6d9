package meshsimtest

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"html"
	"io"
	"net/url"
	"strings"
	"unicode/utf16"
)

// Encodings are the ways in which the text of an answer may come.
var Encodings = map[string]func(string) string{
	"plain":       func(s string) string { return s },
	"BOM":         func(s string) string { return "\ufeff" + s },
	"UTF-16LE":    func(s string) string { return wide16(s, binary.LittleEndian, false) },
	"UTF-16BE":    func(s string) string { return wide16(s, binary.BigEndian, false) },
	"UTF-16LEBOM": func(s string) string { return wide16(s, binary.LittleEndian, true) },
	"UTF-16BEBOM": func(s string) string { return wide16(s, binary.BigEndian, true) },
	"UTF-32LE":    func(s string) string { return wide32(s, binary.LittleEndian) },
	"UTF-32BE":    func(s string) string { return wide32(s, binary.BigEndian) },
	"gzip":        func(s string) string { return packed(s, func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }) },
	"zlib":        func(s string) string { return packed(s, func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }) },
	"base64":      func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	"base64url":   func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) },
	"a string":    quoted,
	"twice":       func(s string) string { return quoted(quoted(s)) },
	"JSONP":       func(s string) string { return "/**/callback(" + s + ");" },
	"guarded":     func(s string) string { return ")]}',\n" + s },
	"HTML before": func(s string) string { return `<html><style>b{color:red}</style><p class="x">5" screen</p>` + s },
	"HTML after":  func(s string) string { return s + "<!-- served by 10.0.0.1 {} -->" },
	"two":         func(s string) string { return `{"status":"ok"}` + "\n" + s },
	"spaces":      func(s string) string { return "\r\n\t " + s + "\n\n" },
	"NUL":         func(s string) string { return "\x00" + s },
	"NULs":        func(s string) string { return "\x00\x00\x00" + s + "\x00" },
	"other mark":  func(s string) string { return "\xff\xfe" + s },
	"wide mark":   func(s string) string { return "\x00\x00\xfe\xff" + s },
}

// Escapes are ways in which the text of an answer may come that are not read.
var Escapes = map[string]func(string) string{
	"URL":         url.QueryEscape,
	"URL twice":   func(s string) string { return url.PathEscape(url.PathEscape(s)) },
	"form":        func(s string) string { return "status=ok&content=" + url.QueryEscape(s) },
	"HTML":        func(s string) string { return "<pre>" + html.EscapeString(s) + "</pre>" },
	"numbered":    func(s string) string { return strings.NewReplacer(`"`, "&#x22;", ":", "&#58;").Replace(s) },
	"quotes":      func(s string) string { return strings.ReplaceAll(s, `"`, "'") },
	"slashes":     func(s string) string { return strings.ReplaceAll(s, `"`, `\"`) },
	"code points": func(s string) string { return strings.NewReplacer(`"`, `\u0022`, ":", `\u003a`).Replace(s) },
	"base64 in": func(s string) string {
		return "data:application/json;base64," + base64.StdEncoding.EncodeToString([]byte(s))
	},
	"base64 lines": func(s string) string { return "body: " + lines(base64.StdEncoding.EncodeToString([]byte(s))) },
	"gzip base64": func(s string) string {
		return `{"gzip":"` + base64.StdEncoding.EncodeToString([]byte(Encodings["gzip"](s))) + `"}`
	},
	"a message":    func(s string) string { return `{"status":"ok","message":` + quoted("got "+s) + `}` },
	"content":      func(s string) string { return Content(quoted(base64.StdEncoding.EncodeToString([]byte(s)))).Body },
	"content text": func(s string) string { return Content(quoted("content: " + quoted(s))).Body },
	"nested": func(s string) string {
		for range 5 {
			s = quoted(s)
		}
		return Content(s).Body
	},
	"hexadecimal": func(s string) string { return hex.EncodeToString([]byte(s)) },
}

func lines(s string) string {
	var out strings.Builder
	for ; len(s) > 64; s = s[64:] {
		out.WriteString(s[:64] + "\r\n")
	}
	return out.String() + s
}

func quoted(s string) string {
	encoded, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(encoded)
}

func wide16(s string, order binary.AppendByteOrder, mark bool) string {
	var out []byte
	if mark {
		out = order.AppendUint16(out, 0xfeff)
	}
	for _, unit := range utf16.Encode([]rune(s)) {
		out = order.AppendUint16(out, unit)
	}
	return string(out)
}

func wide32(s string, order binary.AppendByteOrder) string {
	var out []byte
	for _, r := range s {
		out = order.AppendUint32(out, uint32(r))
	}
	return string(out)
}

func packed(s string, writer func(io.Writer) io.WriteCloser) string {
	var out bytes.Buffer
	w := writer(&out)
	if _, err := w.Write([]byte(s)); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return out.String()
}
