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

// maxTag bounds a grant id that a message or its subject states. NATS closes the
// connection of whoever publishes to a subject that is too long, and that of a
// dead letter is longer than the one that the message came to.
const maxTag = 64

// tag is by what an erasure finds a dead letter: its user, or its grant.
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
		if grant := strings.TrimPrefix(letter.Subject, p.Subjects.Recovery("")); len(grant) <= maxTag {
			return grant
		}
	}
	return events.UnknownTag
}

// users returns the users whom a message names: of a sealed one, those in what
// is sealed. While its key is away a message can't be parked: an erasure would
// not find it. One that no key opens is nobody's, and holds nothing for anybody.
func (p *DeadLetters) users(ctx context.Context, message string, d *delivery, body []byte) ([]string, error) {
	if message != events.IntegrationConnected && message != events.IntegrationDisconnected {
		return nil, nil
	}
	switch {
	case d.User != "":
		return []string{d.User}, nil
	case d.Opened:
		return d.Users, nil
	}
	connect, _ := events.UnwrapConnected(nil, body) // whatever is wrong with its envelope
	if message != events.IntegrationConnected || connect.JWE == "" || p.Keys == nil {
		return events.FindUsers(body), nil
	}
	plaintext, err := p.Keys.Open(ctx, connect.JWE, d.Taken)
	if err != nil {
		if refresher.Outage(err) && !envelope.Refused(err) {
			return nil, err
		}
		return nil, nil
	}
	defer clear(plaintext)
	return events.FindUsers(plaintext), nil
}

// Erase drops the dead letters that hold what a disconnect covers and that
// NATS took in until then. Of a disconnect that covers less than the user, a
// connect goes if all of its accounts are covered; what else is in it would
// be lost. One that can't be judged or deleted keeps no other; after an error the
// erasure has to be tried again.
func (p *DeadLetters) Erase(ctx context.Context, scope store.Scope, at time.Time) error {
	tag := store.UserTag(scope.User)
	whole := scope.Broker == "" && scope.Account == ""
	_, err := streams.SecureDelete(ctx, p.JS, p.Subjects.DeadLetterStream(), p.Subjects.DeadLettersOf(tag), func(msg *jetstream.RawStreamMsg) (bool, error) {
		if p.isPart(msg) { // also one that no letter names, since a worker died over it
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
	if whole { // what names several users is no message, so that none of it is lost to the others
		_, severalErr := streams.SecureDelete(ctx, p.JS, p.Subjects.DeadLetterStream(), p.Subjects.DeadLettersOf(events.SeveralTag), func(msg *jetstream.RawStreamMsg) (bool, error) {
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

// covered reports whether a dead letter holds nothing but accounts in a scope.
// As long as it does not open it holds nothing for anybody: it stays, and only
// what passes by itself is an error.
func (p *DeadLetters) covered(ctx context.Context, letter DeadLetter, scope store.Scope) (bool, error) {
	if letter.Message != events.IntegrationConnected || letter.BodyRemoved {
		return false, nil
	}
	in, err := p.connected(ctx, letter)
	if err != nil {
		if refresher.Outage(err) && !envelope.Refused(err) {
			return false, err
		}
		tracing.Log(ctx, p.Log).Warn("a dead letter does not open, and an erasure leaves it", zap.String("deadLetter", letter.ID), zap.Error(err))
		return false, nil
	}
	for _, c := range grantsOf(in, letter.StoredAt, store.FingerprintKey{}) {
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

// connected returns the connect in a dead letter.
func (p *DeadLetters) connected(ctx context.Context, letter DeadLetter) (events.Connected, error) {
	event, body, err := p.OpenMessage(ctx, letter)
	if err != nil {
		return events.Connected{}, err
	}
	defer clear(body)
	return p.decode(ctx, event, body)
}

// decode reads the body of a connect, sealed by its publisher or not.
func (p *DeadLetters) decode(ctx context.Context, event events.Headers, body []byte) (events.Connected, error) {
	return decodeConnected(ctx, p.Keys, config.Connect{MaxBytes: len(body)}, body, &delivery{Event: event})
}
