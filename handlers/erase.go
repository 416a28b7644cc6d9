package handlers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/refresher"
	"github.com/latchkey/latchkey/store"
	"github.com/latchkey/latchkey/store/envelope"
	"github.com/latchkey/latchkey/store/parts"
)

// maxTag bounds a grant id that a message states.
const maxTag = 64

// tag is by what an erasure finds a dead letter: its user, or its grant.
func (p *DeadLetters) tag(name string, d *delivery, body []byte) string {
	switch name {
	case events.IntegrationConnected, events.IntegrationDisconnected:
		if user := userOf(name, d, body); user != "" {
			return store.UserTag(user)
		}
	case events.RefreshDueName:
		if m, err := events.DecodeRefreshDue(body); err == nil && len(m.GrantID) <= maxTag {
			return events.EncodeUserID(m.GrantID)
		}
	case RecoveryName:
		return strings.TrimPrefix(d.Subject, p.Subjects.Recovery(""))
	}
	return events.UnknownTag
}

// userOf returns the user whom a message is about, empty if it can't be told.
func userOf(name string, d *delivery, body []byte) string {
	if name != events.IntegrationConnected && name != events.IntegrationDisconnected {
		return ""
	}
	if d.User != "" {
		return d.User
	}
	user, ok := events.PeekUser(body)
	if !ok {
		return ""
	}
	return user
}

// Erase drops the dead letters that hold what a disconnect covers and that
// NATS took in until then. Of a disconnect that covers less than the user, a
// connect goes if all of its accounts are covered; what else is in it would
// be lost.
func (p *DeadLetters) Erase(ctx context.Context, scope store.Scope, at time.Time) error {
	whole := scope.Broker == "" && scope.Account == ""
	_, err := refresher.Shred(ctx, p.JS, p.Subjects.DeadLetterStream(), p.Subjects.DeadLettersOf(store.UserTag(scope.User)), func(msg *jetstream.RawStreamMsg) (bool, error) {
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
	if err != nil {
		return fmt.Errorf("erasing dead letters: %w", err)
	}
	return nil
}

// covered reports whether a dead letter holds nothing but accounts in a scope.
func (p *DeadLetters) covered(ctx context.Context, letter DeadLetter, scope store.Scope) (bool, error) {
	if letter.Message != events.IntegrationConnected {
		return false, nil
	}
	body, err := p.Open(ctx, letter)
	if errors.Is(err, parts.ErrMissing) || errors.Is(err, envelope.ErrSealed) || errors.Is(err, envelope.ErrUnknownKey) || errors.Is(err, envelope.ErrWrappedKey) {
		return false, nil // as long as it does not open it holds nothing for anybody
	}
	if err != nil {
		return false, err
	}
	defer clear(body)
	in, err := p.decode(ctx, body)
	if err != nil {
		if outage(err) {
			return false, err
		}
		return false, nil
	}
	for _, c := range grantsOf(in, letter.StoredAt) {
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

// decode reads the body of a connect, sealed by its publisher or not.
func (p *DeadLetters) decode(ctx context.Context, body []byte) (events.Connected, error) {
	return decodeConnected(ctx, p.Keys, config.Connect{MaxBytes: len(body)}, body, &delivery{})
}
