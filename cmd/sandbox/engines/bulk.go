package engines

import (
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// A command may hold many statements: a bulk. On PostgreSQL, FerretDB keeps a connection for each statement of an update
// until the last is done, and waits for ever when it has no more; and it stops at the first that fails, even if a bulk is
// unordered. So the proxy makes a command of every statement, and one answer of theirs. Other writes may come between two
// statements, as on MongoDB, except on SQLite, where one writes at a time.

// bulk returns the statements of a command that has several, each as a command; nil for all other commands.
func (c command) bulk() []command {
	list := statementLists[c.name]
	statements := c.sequences[list]
	if len(statements) < 2 || len(c.sequences) != 1 {
		return nil
	}
	parts := make([]command, len(statements))
	for i, statement := range statements {
		parts[i] = c
		parts[i].sequences = map[string][]bsoncore.Document{list: {statement}}
	}
	return parts
}

type bulkAnswer struct {
	N           int32        `bson:"n"`
	NModified   int32        `bson:"nModified"`
	Upserted    []upserted   `bson:"upserted,omitempty"`
	WriteErrors []writeError `bson:"writeErrors,omitempty"`
	OK          float64      `bson:"ok"`
}

type upserted struct {
	Index int32         `bson:"index"`
	ID    bson.RawValue `bson:"_id"`
}

type writeError struct {
	Index  int32  `bson:"index"`
	Code   int32  `bson:"code"`
	ErrMsg string `bson:"errmsg"`
}

// The codes of errors that concern the server, not one statement.
const (
	codeInternalError    = 1
	codeInvalidNamespace = 73
)

// add adds the answer to the i-th statement. It returns false if that is a failure of the server, and so the answer to
// the whole bulk.
func (a *bulkAnswer) add(i int, part command) (bool, error) {
	var answer bulkAnswer
	var refusal writeError // as a command
	if err := errors.Join(bson.Unmarshal(part.body, &answer), bson.Unmarshal(part.body, &refusal)); err != nil {
		return false, fmt.Errorf("reading FerretDB's answer: %w", err)
	}
	if answer.OK != 1 {
		if refusal.Code == codeInternalError || refusal.Code == codeInvalidNamespace {
			return false, nil
		}
		answer.WriteErrors = []writeError{refusal}
	}
	a.N += answer.N
	a.NModified += answer.NModified
	for _, u := range answer.Upserted {
		u.Index = int32(i)
		a.Upserted = append(a.Upserted, u)
	}
	for _, e := range answer.WriteErrors {
		e.Index = int32(i)
		a.WriteErrors = append(a.WriteErrors, e)
	}
	return true, nil
}

// writeBulk passes on the statements of a bulk one by one, and stops at the first that fails unless the bulk is unordered.
func (s *session) writeBulk(requestID int32, parts []command) (message, error) {
	ordered, given := parts[0].body.Lookup("ordered").BooleanOK()
	write := s.write
	if s.proxy.writing.oneByOne {
		// A bulk that waited for each statement would come last where many write.
		defer s.proxy.writing.lock(parts[0])()
		write = s.writeAlone
	}
	total := bulkAnswer{OK: 1}
	for i, part := range parts {
		response, err := write(part.message(requestID), part)
		if err != nil {
			return nil, err
		}
		answer, ok := response.command()
		if !ok {
			return response, nil
		}
		if ok, err := total.add(i, answer); !ok || err != nil {
			return response, err
		}
		if len(total.WriteErrors) > 0 && (ordered || !given) {
			break
		}
	}
	return marshalMessage(requestID, &total)
}
