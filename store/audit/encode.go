package audit

import (
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// encode returns a record as JSON, shortened where it is longer than limit.
func (r Record) encode(limit int) ([]byte, error) {
	data, err := r.append(make([]byte, 0, 512))
	if err == nil && len(data) > limit {
		r.Truncated = true
		grants := r.Grants
		r.Grants = make([]Grant, 0, len(grants))
		for _, g := range grants {
			g.Accounts = nil
			r.Grants = append(r.Grants, g)
		}
		data, err = r.append(nil)
	}
	if err == nil && len(data) > limit {
		r.Grants = nil
		data, err = r.append(nil)
	}
	if err != nil {
		return nil, fmt.Errorf("encoding an audit record: %w", err)
	}
	return data, nil
}

// append appends a record as json.Marshal would, but for how characters are
// escaped: every hand-out waits for it. A test compares the two.
func (r Record) append(b []byte) ([]byte, error) {
	b = append(b, `{"at":"`...)
	b, err := r.At.AppendText(b) // fails, as json.Marshal does, for what RFC 3339 has no form for
	b = append(b, '"')
	b = appendText(b, `,"action":`, string(r.Action))
	b = appendMember(b, `,"outcome":`, r.Outcome)
	b = appendMember(b, `,"user":`, r.User)
	if len(r.Grants) > 0 {
		b = append(b, `,"grants":[`...)
		for i, g := range r.Grants {
			if i > 0 {
				b = append(b, ',')
			}
			b = g.append(b)
		}
		b = append(b, ']')
	}
	if r.Caller != nil {
		b = append(b, `,"caller":{`...)
		from := len(b)
		b = appendMember(b, `,"inbox":`, r.Caller.Inbox)
		b = appendMember(b, `,"account":`, r.Caller.Account)
		b = appendMember(b, `,"user":`, r.Caller.User)
		b = appendMember(b, `,"name":`, r.Caller.Name)
		if len(b) > from {
			b = append(b[:from], b[from+1:]...) // the first comma
		}
		b = append(b, '}')
	}
	b = appendMember(b, `,"deadLetter":`, r.DeadLetter)
	if r.Count != 0 {
		b = strconv.AppendInt(append(b, `,"count":`...), int64(r.Count), 10)
	}
	if r.Truncated {
		b = append(b, `,"truncated":true`...)
	}
	return append(b, '}'), err
}

func (g Grant) append(b []byte) []byte {
	b = appendText(b, `{"id":`, g.ID)
	b = appendMember(b, `,"broker":`, g.Broker)
	if g.Version != 0 {
		b = strconv.AppendInt(append(b, `,"version":`...), g.Version, 10)
	}
	for i, account := range g.Accounts {
		if i == 0 {
			b = appendText(b, `,"accounts":[`, account)
		} else {
			b = appendText(b, `,`, account)
		}
	}
	if len(g.Accounts) > 0 {
		b = append(b, ']')
	}
	b = appendMember(b, `,"code":`, g.Code)
	return append(b, '}')
}

// appendMember appends a text after its name, unless there is none.
func appendMember(b []byte, name, text string) []byte {
	if text == "" {
		return b
	}
	return appendText(b, name, text)
}

func appendText(b []byte, name, text string) []byte {
	b, _ = jsontext.AppendQuote(append(b, name...), text) // what is not UTF-8 is replaced
	return b
}
