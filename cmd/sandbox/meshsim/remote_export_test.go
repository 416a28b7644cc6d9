package meshsim

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/latchkey/latchkey/events/secret"
)

// Remote steers a simulator over HTTP, as a program in another process would. Its methods are those of
// [Server].
type Remote struct {
	URL          string // where the simulator listens, without a path
	ClientID     string
	ClientSecret secret.Text
	HTTP         *http.Client // http.DefaultClient unless set
}

// wireConnection is a [Connection] with its payload as JSON inside JSON.
type wireConnection struct {
	Payload  jsontext.Value     `json:"payload"`
	Accounts []ConnectedAccount `json:"accounts"`
}

// Connect is [Server.Connect].
func (r Remote) Connect(ctx context.Context, spec ConnectSpec) (Connection, error) {
	var c wireConnection
	err := r.do(ctx, http.MethodPost, "/sim/connect", spec, &c)
	return Connection{Payload: secret.New(string(c.Payload)), Accounts: c.Accounts}, err
}

// Ledger is [Server.Ledger], taken once no request is under way.
func (r Remote) Ledger(ctx context.Context) (Ledger, error) {
	var l Ledger
	err := r.do(ctx, http.MethodGet, "/sim/ledger?settle=true", nil, &l)
	return l, err
}

// Inject is [Server.Inject].
func (r Remote) Inject(ctx context.Context, list ...Fault) ([]int, error) {
	var out struct {
		IDs []int `json:"ids"`
	}
	err := r.do(ctx, http.MethodPost, "/sim/faults", list, &out)
	return out.IDs, err
}

// Faults is [Server.Faults].
func (r Remote) Faults(ctx context.Context) ([]Fault, error) {
	var out []Fault
	err := r.do(ctx, http.MethodGet, "/sim/faults", nil, &out)
	return out, err
}

// ClearFaults is [Server.ClearFaults].
func (r Remote) ClearFaults(ctx context.Context, ids ...int) error {
	q := url.Values{}
	for _, id := range ids {
		q.Add("id", strconv.Itoa(id))
	}
	return r.do(ctx, http.MethodDelete, "/sim/faults?"+q.Encode(), nil, nil)
}

// Script is [Server.Script].
func (r Remote) Script(ctx context.Context, accountID string, actions ...Action) error {
	return r.do(ctx, http.MethodPost, "/sim/script", accountCommand{AccountID: accountID, Actions: actions}, nil)
}

// Kill is [Server.Kill].
func (r Remote) Kill(ctx context.Context, accountID string) error {
	return r.do(ctx, http.MethodPost, "/sim/kill", accountCommand{AccountID: accountID}, nil)
}

// Alter is [Server.Alter].
func (r Remote) Alter(ctx context.Context, accountID string, i Institution) error {
	return r.do(ctx, http.MethodPost, "/sim/alter", accountCommand{AccountID: accountID, Institution: i}, nil)
}

// Speak is [Server.Speak].
func (r Remote) Speak(ctx context.Context, brokerType string, dialects ...string) error {
	return r.do(ctx, http.MethodPost, "/sim/dialects", speakCommand{BrokerType: brokerType, Dialects: dialects}, nil)
}

func (r Remote) do(ctx context.Context, method, path string, in, out any) error {
	var body bytes.Buffer
	if in != nil {
		if err := encode(&body, in); err != nil {
			return fmt.Errorf("encode %s %s: %w", method, path, err)
		}
	}
	q, err := http.NewRequestWithContext(ctx, method, r.URL+path, &body)
	if err != nil {
		return err
	}
	q.Header.Set("X-Client-Id", r.ClientID)
	q.Header.Set("X-Client-Secret", r.ClientSecret.Reveal())
	client := r.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(q)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode >= http.StatusBadRequest {
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(why))
	}
	if out == nil {
		return nil
	}
	if err := decode(resp.Body, out, jsontext.AllowInvalidUTF8(true)); err != nil {
		return fmt.Errorf("decode the answer of %s %s: %w", method, path, err)
	}
	return nil
}
