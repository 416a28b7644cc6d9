package events

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/latchkey/latchkey/events/secret"
)

// maxLeftOut limits the entries of Connected.LeftOut.
const maxLeftOut = 10

// connectReader reads an integration.connected message. It leaves out what is unusable
// and notes where. It refuses a message only if nothing usable remains, or if something
// that matters can be read in two ways.
type connectReader struct {
	leftOut []string
	more    int
	// refused is why the message is refused; "": it is not.
	refused string
	// lost is the first problem that may have cost a token.
	lost      string
	inEntry   bool // reading an entry of accountTokens
	ambiguous bool // the entry can be read in two ways
}

// location is a place in a message.
type location struct {
	object string
	entry  int // of accountTokens, from 1; 0: none
	name   string
}

func (p location) String() string {
	out := p.object
	if p.entry > 0 {
		out += ".accountTokens." + strconv.Itoa(p.entry-1)
	}
	if p.name == "" {
		return out
	}
	return strings.TrimPrefix(out+"."+p.name, ".")
}

func (p location) at(name string) location {
	p.name = name
	return p
}

func (r *connectReader) leaveOut(at location, problem string) {
	if len(r.leftOut) == maxLeftOut {
		r.more++
		return
	}
	r.leftOut = append(r.leftOut, at.String()+": "+problem)
}

// loseToken is leaveOut for a problem that may cost a token.
func (r *connectReader) loseToken(at location, problem string) {
	r.lost = cmp.Or(r.lost, at.String()+": "+problem)
	r.leaveOut(at, problem)
}

func (r *connectReader) refuse(at location, problem string) {
	r.refused = cmp.Or(r.refused, at.String()+": "+problem)
}

func (r *connectReader) err() error {
	if r.refused == "" {
		return nil
	}
	return invalid(IntegrationConnected, "%s", r.refused)
}

// secret reads a token; an absent one is empty.
func (r *connectReader) secret(v jsontext.Value, at location) secret.Text {
	text, problem := textOf(v)
	if problem != "" {
		r.loseToken(at, problem)
	}
	return secret.New(text)
}

// handle reads a token id, which may be a number.
func (r *connectReader) handle(v jsontext.Value, at location) secret.Text {
	if v.Kind() == '0' {
		return secret.New(string(v))
	}
	return r.secret(v, at)
}

// display reads a display name.
func (r *connectReader) display(v jsontext.Value, at location) string {
	text, problem := textOf(v)
	if problem != "" {
		r.leaveOut(at, problem)
	}
	return CutName(text)
}

func (r *connectReader) seconds(v jsontext.Value, at location) Seconds {
	number := string(v)
	switch v.Kind() {
	case '"':
		number, _ = textOf(v)
		number = strings.TrimSpace(number)
		if !jsontext.Value(number).IsValid() { // ParseFloat takes more, such as 0x1p4
			number = ""
		}
	case '0':
	default:
		if v != nil {
			r.leaveOut(at, wrongKind(v))
		}
		return 0
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) { // what is too large is infinite
		r.leaveOut(at, "not a number of seconds")
		return 0
	}
	if f < 0 || math.IsNaN(f) {
		r.leaveOut(at, "negative")
		return 0
	}
	return Seconds(min(f, maxLifetime.Seconds()))
}

// time reads a time; zero: there is none, or it is unusable.
func (r *connectReader) time(v jsontext.Value, at location) time.Time {
	text, problem := textOf(v)
	var out time.Time
	if problem == "" && v != nil {
		out, problem = parseTime(text)
	}
	if problem != "" {
		r.leaveOut(at, problem)
	}
	return out
}

// unwrap returns the data and time of a CloudEvents 1.0 message, or a plain JSON body.
func (r *connectReader) unwrap(h Headers, body []byte) (data jsontext.Value, at time.Time, err error) {
	if err := h.check(IntegrationConnected); err != nil {
		return nil, time.Time{}, err
	}
	if data, at, err = r.structured(body); err != nil || !at.IsZero() {
		return data, at, err
	}
	at, problem := h.time()
	if problem != "" {
		r.leaveOut(location{name: "ce-time"}, problem)
	}
	return data, at, nil
}

func (r *connectReader) structured(body []byte) (data jsontext.Value, at time.Time, err error) {
	whole, err := object(IntegrationConnected, body)
	if err != nil {
		return nil, time.Time{}, err
	}
	var envelope connectReader // its findings matter only if there is an envelope
	m := envelope.members(whole, location{}, envelopeMembers)
	if m[0] == nil {
		return whole, time.Time{}, nil
	}
	data, at, err = envelope.event(m)
	r.leftOut = append(r.leftOut, envelope.leftOut...)
	return data, at, err
}

var envelopeMembers = []member{{"specversion", true}, {"type", true}, {"id", false}, {"source", false}, {"time", false}, {"data", true}, {"data_base64", true}}

// event reads the attributes of a CloudEvents message. A wrong version or type is
// refused; a missing id or source is not.
func (r *connectReader) event(m []jsontext.Value) (data jsontext.Value, at time.Time, err error) {
	version, problem := textOf(m[0])
	switch {
	case problem != "":
		r.refuse(location{name: "specversion"}, problem)
	case version != cloudEventsVersion:
		r.refuse(location{name: "specversion"}, fmt.Sprintf("must be %q", cloudEventsVersion))
	}
	kind, problem := textOf(m[1])
	switch {
	case problem != "":
		r.refuse(location{name: "type"}, problem)
	case strings.TrimSpace(kind) == "":
		r.leaveOut(location{name: "type"}, problemEmpty)
	case !isType(IntegrationConnected, kind):
		return nil, at, foreignType(IntegrationConnected)
	}
	for i, name := range []string{"id", "source"} {
		text, problem := textOf(m[2+i])
		if problem == "" && strings.TrimSpace(text) == "" {
			problem = problemEmpty
		}
		if problem != "" {
			r.leaveOut(location{name: name}, problem)
		}
	}
	if err := r.err(); err != nil {
		return nil, at, err
	}
	at = r.time(m[4], location{name: "time"})
	data, encoded := m[5], m[6]
	switch {
	case data == nil && encoded == nil:
		return nil, at, invalid(IntegrationConnected, "the CloudEvents message has neither data nor data_base64")
	case data != nil && encoded != nil:
		return nil, at, invalid(IntegrationConnected, "the CloudEvents message has both data and data_base64")
	case data == nil:
		text, problem := textOf(encoded)
		if data = fromBase64(text); problem != "" || data == nil {
			return nil, at, invalid(IntegrationConnected, "data_base64: %s", wrongKind(encoded))
		}
		if data, err = object(IntegrationConnected, data); err != nil {
			return nil, at, err
		}
	}
	if data.Kind() != '{' {
		return nil, at, invalid(IntegrationConnected, "the body: %s", wrongKind(data))
	}
	return data, at, nil
}

// sealed returns the JWE of sealed data, or "" if it is not sealed. It refuses other
// members: they could be tokens in the clear, or a user id that is not authenticated.
func (r *connectReader) sealed(data jsontext.Value) (jwe string, err error) {
	found := false
	var value jsontext.Value
	others := 0
	eachMember(data, func(name []byte, v jsontext.Value) {
		switch {
		case string(name) != "sealed":
			others++
		case found && !sameValue(value, v):
			r.refuse(location{name: "sealed"}, problemTwice)
		default:
			found, value = true, v
		}
	})
	if !found {
		return "", nil
	}
	jwe, problem := textOf(value)
	switch {
	case problem != "":
		r.refuse(location{name: "sealed"}, problem)
	case others > 0:
		r.refuse(location{name: "sealed"}, "nothing may stand beside it")
	case jwe == "":
		r.refuse(location{name: "sealed"}, problemEmpty)
	}
	return jwe, r.err()
}

var connectMembers = []member{{"userId", true}, {"payload", true}, {"connectedAt", false}, {"labels", false}, {"metadata", false}}

// connect reads the data of a message; at is the time of the envelope.
func (r *connectReader) connect(data jsontext.Value, at time.Time) (Connected, error) {
	m := r.members(data, location{}, connectMembers)
	user, problem := textOf(m[0])
	switch err := CheckUserID(user); {
	case problem != "":
		r.refuse(location{name: "userId"}, problem)
	case err != nil:
		r.refuse(location{name: "userId"}, err.Error())
	}
	c := Connected{UserID: user, ConnectedAt: r.time(m[2], location{name: "connectedAt"})}
	if c.ConnectedAt.IsZero() {
		c.ConnectedAt = at
	}
	c.Payload = r.payload(m[1])
	c.Labels, c.Metadata = r.labels(m[3]), r.metadata(m[4])
	if err := r.err(); err != nil {
		return Connected{}, err
	}
	if a := c.Payload.AccessToken; a != nil {
		if err := checkSize(a.AccountTokens); err != nil {
			return Connected{}, err
		}
	}
	if c.LeftOut = r.leftOut; r.more > 0 {
		c.LeftOut = append(c.LeftOut, fmt.Sprintf("and %d more", r.more))
	}
	return c, nil
}

// maxAccountsBytes limits the accounts of a grant in an event, so that the event fits
// into a NATS message of 1 MB. Otherwise workers would retry to publish it for ever.
const maxAccountsBytes = 512 << 10

// checkSize refuses accounts that take more than maxAccountsBytes in an event.
func checkSize(tokens []AccountToken) error {
	size := 0
	for _, t := range tokens {
		size += len(t.Account.AccountID) + len(t.Account.AccountName) + len(`{"accountId":"","accountName":""},`)
	}
	if 6*size <= maxAccountsBytes { // an escape has at most six bytes
		return nil
	}
	accounts := make([]Account, len(tokens))
	for i, t := range tokens {
		accounts[i] = Account{AccountID: t.Account.AccountID, AccountName: t.Account.AccountName}
	}
	encoded, err := json.Marshal(accounts)
	if err != nil || len(encoded) > maxAccountsBytes {
		return invalid(IntegrationConnected, "payload.accessToken.accountTokens: too many accounts: their ids and names take %d bytes in an event, at most %d", len(encoded), maxAccountsBytes)
	}
	return nil
}
