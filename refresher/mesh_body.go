package refresher

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"
)

const maxPacked = 3

var byteOrderMark = []byte("\ufeff")

// unpack returns the text of a body that is compressed (though nobody asked for it), in
// another encoding than UTF-8, or in base64. What can't be unpacked stays as it is.
// encoding is the Content-Encoding header. fresh: the text is a copy.
func unpack(body []byte, encoding string) (text []byte, fresh bool) {
	for range maxPacked {
		body = bytes.TrimPrefix(body, byteOrderMark)
		text = nil
		switch trimmed := bytes.TrimSpace(body); {
		case bytes.HasPrefix(body, []byte{0x1f, 0x8b}):
			if r, err := gzip.NewReader(bytes.NewReader(body)); err == nil {
				text = readAll(r)
			}
		case isZlib(body):
			if r, err := zlib.NewReader(bytes.NewReader(body)); err == nil {
				text = readAll(r)
			}
		case encoding == "deflate" && !utf8.Valid(body):
			text = readAll(flate.NewReader(bytes.NewReader(body)))
		case wide(body):
			text = toUTF8(body)
		case isBase64(trimmed):
			text = fromBase64(trimmed)
		}
		if len(text) == 0 {
			break
		}
		body, fresh = text, true
	}
	return body, fresh
}

func isZlib(body []byte) bool {
	return len(body) > 2 && body[0]&0x0f == 8 && (int(body[0])<<8|int(body[1]))%31 == 0 && !utf8.Valid(body)
}

// readAll returns what can be read, up to maxAnswer.
func readAll(r io.Reader) []byte {
	text, _ := io.ReadAll(io.LimitReader(r, maxAnswer)) // what is cut off has a beginning
	return text
}

// wide reports whether a body is in UTF-16 or UTF-32: its first two characters are
// of ASCII, or the first one behind a byte order mark. A NUL before text of another
// encoding makes no such pair.
func wide(body []byte) bool {
	zeros := func(from, to int) string {
		pattern := make([]byte, 0, 8)
		for _, b := range body[from:min(to, len(body))] {
			if b == 0 {
				pattern = append(pattern, '0')
			} else {
				pattern = append(pattern, 'x')
			}
		}
		return string(pattern)
	}
	if bytes.HasPrefix(body, []byte{0xff, 0xfe}) || bytes.HasPrefix(body, []byte{0xfe, 0xff}) {
		first := zeros(2, 4)
		return first == "0x" || first == "x0" || zeros(2, 8) == "00x000"
	}
	if bytes.HasPrefix(body, []byte{0, 0, 0xfe, 0xff}) {
		return zeros(4, 8) == "000x"
	}
	switch zeros(0, 8) {
	case "000x000x", "x000x000":
		return true
	}
	return zeros(0, 4) == "0x0x" || zeros(0, 4) == "x0x0"
}

// toUTF8 returns UTF-16 or UTF-32, of either byte order, as UTF-8.
func toUTF8(body []byte) []byte {
	order, order32 := unicode.LittleEndian, utf32.LittleEndian
	if body[0] == 0 || body[0] == 0xfe {
		order, order32 = unicode.BigEndian, utf32.BigEndian
	}
	from, size := unicode.UTF16(order, unicode.IgnoreBOM), 2
	if body[0] == 0 && body[1] == 0 || body[2] == 0 && body[3] == 0 {
		from, size = utf32.UTF32(order32, utf32.IgnoreBOM), 4
	}
	text, _ := from.NewDecoder().Bytes(body[:len(body)/size*size]) // what is no character becomes U+FFFD
	return bytes.TrimPrefix(text, byteOrderMark)
}

// isBase64 reports whether a body is nothing but base64, with line breaks or not.
func isBase64(body []byte) bool {
	const least = 16 // "e30=" is also a word
	body = bytes.TrimRight(body, "=\r\n")
	return len(body) >= least && len(bytes.Trim(body, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_\r\n")) == 0
}

// fromBase64 decodes base64 of either alphabet, if it stands for JSON or compressed text.
func fromBase64(body []byte) []byte {
	text := decodeBase64(body)
	first := bytes.TrimSpace(bytes.TrimPrefix(text, byteOrderMark))
	if len(first) > 0 && strings.IndexByte(`{["`, first[0]) >= 0 || bytes.HasPrefix(text, []byte{0x1f, 0x8b}) || isZlib(text) || wide(text) {
		return text
	}
	return nil
}

// decodeBase64 returns what base64 of either alphabet stands for.
func decodeBase64(body []byte) []byte {
	plain := bytes.Map(func(r rune) rune {
		switch r {
		case '-':
			return '+'
		case '_':
			return '/'
		case '\r', '\n', '=':
			return -1
		}
		return r
	}, body)
	text := make([]byte, base64.RawStdEncoding.DecodedLen(len(plain)))
	n, _ := base64.RawStdEncoding.Decode(text, plain) // what is cut off has a beginning
	return text[:n]
}
