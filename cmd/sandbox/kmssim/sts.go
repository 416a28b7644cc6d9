package kmssim

import (
	"cmp"
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/uuid"

	"github.com/latchkey/latchkey/events/secret"
)

// STS simulates the operation of the Security Token Service that a worker in a pod needs:
// AssumeRoleWithWebIdentity, which exchanges an identity token for short-lived credentials.
// Its KMS accepts these. It serves HTTP and is safe for concurrent use.
type STS struct {
	kms      *KMS
	token    secret.Text
	lifetime time.Duration
	clock    func() time.Time
	faults   *Faults
}

// STSOptions configure an STS. Token is required.
type STSOptions struct {
	Token    secret.Text      // the identity token that is accepted
	Lifetime time.Duration    // of the credentials, whatever a request says; an hour if 0
	Clock    func() time.Time // dates the credentials; time.Now if nil
}

// NewSTS returns a service whose credentials k accepts.
func NewSTS(k *KMS, o STSOptions) *STS {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &STS{kms: k, token: o.Token, lifetime: cmp.Or(o.Lifetime, time.Hour), clock: o.Clock, faults: newFaults()}
}

// AssumeRole names the operation in [Faults].
const AssumeRole = "AssumeRoleWithWebIdentity"

func (s *STS) Faults() *Faults { return s.faults }

func (s *STS) Calls() int { return s.faults.count(AssumeRole) }

// session is what KMS accepts in addition to its own credentials.
type session struct {
	credentials aws.Credentials
	now         func() time.Time
}

type assumeRoleAnswer struct {
	XMLName     xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ AssumeRoleWithWebIdentityResponse"`
	Credentials struct {
		AccessKeyID     string `xml:"AccessKeyId"`
		SecretAccessKey string
		SessionToken    string
		Expiration      string
	} `xml:"AssumeRoleWithWebIdentityResult>Credentials"`
	RequestID string `xml:"ResponseMetadata>RequestId"`
}

type stsError struct {
	XMLName   xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ ErrorResponse"`
	Type      string   `xml:"Error>Type"`
	Code      string   `xml:"Error>Code"`
	Message   string   `xml:"Error>Message"`
	RequestID string   `xml:"RequestId"`
}

func (s *STS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out, err := s.handle(w, r)
	var body any = out
	status := http.StatusOK
	if err != nil {
		e := failureOf(r, err, "InternalFailure")
		status, body = e.status, stsError{Type: "Sender", Code: e.code, Message: e.message, RequestID: out.RequestID}
	}
	encoded, err := xml.Marshal(body)
	if err != nil {
		panic(err) // all answers are plain structs
	}
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	_, _ = w.Write(encoded) // a client that has gone needs no answer
}

func (s *STS) handle(w http.ResponseWriter, r *http.Request) (out assumeRoleAnswer, err error) {
	out.RequestID = uuid.NewString()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		return out, errDisconnect
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || form.Get("Action") != AssumeRole {
		return out, clientError("InvalidAction", "The operation is not simulated.")
	}
	if err := s.faults.hit(r.Context(), AssumeRole); err != nil {
		return out, err
	}
	if form.Get("RoleArn") == "" || form.Get("RoleSessionName") == "" {
		return out, clientError("ValidationError", "RoleArn and RoleSessionName are required.")
	}
	if !secret.New(form.Get("WebIdentityToken")).Equal(s.token) {
		return out, clientError("InvalidIdentityToken", "The identity token is not one that this service knows.")
	}
	c := aws.Credentials{
		AccessKeyID: "ASIA" + uuid.NewString(), SecretAccessKey: uuid.NewString(), SessionToken: uuid.NewString(),
		CanExpire: true, Expires: s.clock().Add(s.lifetime),
	}
	s.kms.sessions.Store(c.AccessKeyID, session{credentials: c, now: s.clock})
	out.Credentials.AccessKeyID, out.Credentials.SecretAccessKey, out.Credentials.SessionToken = c.AccessKeyID, c.SecretAccessKey, c.SessionToken
	out.Credentials.Expiration = c.Expires.UTC().Format(time.RFC3339Nano)
	return out, nil
}
