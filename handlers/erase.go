package handlers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/tracing"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
	"github.com/latchkey/latchkey/store/parts"
	"github.com/latchkey/latchkey/store/streams"
)

// maxTag bounds a grant id from a message or its subject. NATS closes a connection that
// publishes to a subject that is too long, and the subject of a dead letter is longer than
// that of its message.
const maxTag = 64

// tag returns what an erasure finds a dead letter by: its user, or its grant. It sets the
// users of one that names several.
func (p *DeadLetters) tag(letter *DeadLetter, users []string, body []byte) string {
	switch letter.Message {
	case events.IntegrationConnected, events.IntegrationDisconnected:
		if len(users) == 1 {
			return store.UserTag(users[0])
		}
		for _, user := range users {
			letter.Users = append(letter.Users, store.UserTag(user))
		}
		if len(users) > 1 {
			return events.SeveralTag
		}
	case events.RefreshDueName:
		if m, err := events.DecodeRefreshDue(body); err == nil && len(m.GrantID) <= maxTag {
			return events.EncodeUserID(m.GrantID)
		}
	case RecoveryName:
		if grant := strings.TrimPrefix(letter.Subject, p.opts.Subjects.Recovery("")); len(grant) <= maxTag {
			return grant
		}
	}
	return events.UnknownTag
}

// users returns the users that a message, opened if it is sealed, names. It fails while
// the key is away, since an erasure would not find the dead letter. A message that no key
// opens belongs to nobody.
func (p *DeadLetters) users(ctx context.Context, message string, d *delivery, body []byte) ([]string, error) {
	if message != events.IntegrationConnected && message != events.IntegrationDisconnected {
		return nil, nil
	}
	switch {
	case d.User != "":
		return []string{d.User}, nil
	case d.Undecodable:
		return d.Users, nil
	}
	connect, _ := events.UnwrapConnected(nil, body) // its envelope may be wrong
	if message != events.IntegrationConnected || connect.JWE == "" || p.opts.Keys == nil {
		return events.FindUsers(body), nil
	}
	plaintext, err := p.opts.Keys.Open(ctx, connect.JWE, d.StoredAt)
	if err != nil {
		if refresher.Outage(err) && !envelope.Refused(err) {
			return nil, err
		}
		return nil, nil
	}
	defer clear(plaintext)
	return events.FindUsers(plaintext), nil
}

// Erase drops the dead letters that a disconnect covers and whose messages NATS stored
// until then. If it covers only a part of the user, it drops connects with no account
// outside that part: the others would be lost. A dead letter that fails stops none of the
// others; after an error the erasure has to be repeated.
func (p *DeadLetters) Erase(ctx context.Context, scope store.Scope, at time.Time) error {
	tag := store.UserTag(scope.User)
	whole := scope.Broker == "" && scope.Account == ""
	_, err := streams.SecureDelete(ctx, p.opts.JetStream, p.opts.Subjects.DeadLetterStream(), p.opts.Subjects.DeadLettersOf(tag), func(msg *jetstream.RawStreamMsg) (bool, error) {
		if p.isPart(msg) { // even of no letter: a worker may have died before it wrote one
			return whole && !parts.Stored(msg).After(at), nil
		}
		letter := p.parked(msg)
		if letter.StoredAt.After(at) {
			return false, nil
		}
		if whole {
			return true, nil
		}
		covered, err := p.covered(ctx, letter.DeadLetter, scope)
		if covered && err == nil {
			err = p.Drop(ctx, letter)
		}
		return false, err
	})
	if whole { // a body that names several users is useless to each of them
		_, severalErr := streams.SecureDelete(ctx, p.opts.JetStream, p.opts.Subjects.DeadLetterStream(), p.opts.Subjects.DeadLettersOf(events.SeveralTag), func(msg *jetstream.RawStreamMsg) (bool, error) {
			letter := p.parked(msg)
			if p.isPart(msg) || letter.StoredAt.After(at) || !slices.Contains(letter.Users, tag) {
				return false, nil
			}
			return false, p.Drop(ctx, letter)
		})
		err = errors.Join(err, severalErr)
	}
	if err != nil {
		return fmt.Errorf("erasing dead letters: %w", err)
	}
	return nil
}

// covered reports whether a dead letter contains only accounts in a scope. One that does
// not open is useless to everybody and stays; only an outage is an error.
func (p *DeadLetters) covered(ctx context.Context, letter DeadLetter, scope store.Scope) (bool, error) {
	if letter.Message != events.IntegrationConnected || letter.BodyRemoved {
		return false, nil
	}
	in, err := p.connected(ctx, letter)
	if err != nil {
		if refresher.Outage(err) && !envelope.Refused(err) {
			return false, err
		}
		tracing.Log(ctx, p.opts.Log).Warn("a dead letter does not open, and an erasure leaves it", zap.String("deadLetter", letter.ID), zap.Error(err))
		return false, nil
	}
	for _, c := range candidatesOf(in, letter.StoredAt, store.FingerprintKey{}) {
		if len(c.grant.Accounts) == 0 && !scope.Covers(c.grant.BrokerType, "") {
			return false, nil
		}
		for _, a := range c.grant.Accounts {
			if !scope.Covers(c.grant.BrokerType, a.ID) {
				return false, nil
			}
		}
	}
	return true, nil
}

// connected returns the connect in a dead letter, sealed by its publisher or not.
func (p *DeadLetters) connected(ctx context.Context, letter DeadLetter) (events.Connected, error) {
	event, body, err := p.open(ctx, letter)
	if err != nil {
		return events.Connected{}, err
	}
	defer clear(body)
	return decodeConnected(ctx, p.opts.Keys, config.Connect{MaxBytes: len(body)}, body, &delivery{Event: event})
}
