package engines

import (
	"errors"
	"fmt"
	"net"
	"time"
)

type session struct {
	proxy    *Proxy
	upstream string
	leave    <-chan struct{} // closed when the proxy has disconnected the client

	client, server net.Conn
}

var (
	errLost = errors.New("answer lost on purpose")
	errLeft = errors.New("client disconnected")
)

func (s *session) serve() {
	var err error
	if s.server, err = net.Dial("tcp", s.upstream); err != nil {
		return
	}
	defer s.server.Close()
	for {
		request, err := readMessage(s.client)
		if err != nil {
			return
		}
		if err := s.answer(request); err != nil {
			return
		}
	}
}

// answer does one request and sends the client the answer, if it wants one.
func (s *session) answer(request message) error {
	silent := request.moreToCome()
	if silent {
		request.wantAnswer() // FerretDB answers everything
	}
	faults := s.proxy.currentFaults()
	if faults.delay > 0 {
		select {
		case <-time.After(faults.delay):
		case <-s.leave:
			return errLeft
		}
	}
	response, err := s.do(request, faults)
	if err != nil || silent {
		return err
	}
	if cmd, _ := request.command(); faults.swallow != nil && faults.swallow(cmd.name, cmd.collection) {
		return nil
	}
	for {
		if _, err := s.client.Write(response); err != nil {
			return err
		}
		if !response.moreToCome() {
			return nil
		}
		if response, err = readMessage(s.server); err != nil {
			return err
		}
	}
}

// do passes a request on to FerretDB, and plays the faults if it may write.
func (s *session) do(request message, faults faults) (message, error) {
	cmd, _ := request.command()
	if readsOnly(request, cmd) {
		return s.read(request, cmd)
	}
	if faults.fail != nil && faults.fail(cmd.name, cmd.collection) {
		return errorMessage(request.requestID(), faults.failCode, fmt.Sprintf("%s made to fail", cmd.name)), nil
	}
	var response message
	var err error
	if parts := cmd.bulk(); parts != nil {
		response, err = s.writeBulk(request.requestID(), parts)
	} else {
		response, err = s.write(request, cmd)
	}
	if err == nil && faults.lose != nil && faults.lose(cmd.name, cmd.collection) {
		return nil, errLost
	}
	return response, err
}

func (s *session) read(request message, cmd command) (message, error) {
	if queries[cmd.name] {
		defer s.proxy.enter()()
	}
	if f, ok := cmd.findIn(); ok && s.proxy.finds(namespace{cmd.db, cmd.collection}, f.field) {
		if answer, err := s.findIn(request.requestID(), f); answer != nil || err != nil {
			return answer, err
		}
	}
	return s.exchange(request)
}

// write passes on a request of one statement, or of inserts, while nothing else writes to the same documents.
func (s *session) write(request message, cmd command) (message, error) {
	defer s.proxy.writing.lock(cmd)()
	return s.writeAlone(request, cmd)
}

// writeAlone is write for a caller that holds the locks.
func (s *session) writeAlone(request message, cmd command) (message, error) {
	defer s.proxy.enter()()
	if w, ok := cmd.conditional(); ok && s.proxy.splits {
		return s.writeConditional(request, w)
	}
	return s.exchange(request)
}

// writeConditional carries out a request in two steps (see conditional), or as it is if they do not fit.
func (s *session) writeConditional(request message, w conditional) (message, error) {
	probe, err := w.probe()
	if err != nil {
		return nil, err
	}
	answer, err := s.exchange(probe)
	if err != nil {
		return nil, err
	}
	found, ok := answer.firstBatch()
	if !ok { // as when FerretDB does not know a condition
		return s.exchange(request)
	}
	if request, err = w.split(request.requestID(), len(found) > 0); err != nil {
		return nil, err
	}
	return s.exchange(request)
}

func (s *session) exchange(request message) (message, error) {
	if _, err := s.server.Write(request); err != nil {
		return nil, err
	}
	return readMessage(s.server)
}

// readers are the commands that change nothing. All others, and what cannot be understood, count as writes.
var readers = map[string]bool{
	"hello": true, "isMaster": true, "ismaster": true, "ping": true, "buildInfo": true, "buildinfo": true,
	"whatsmyuri": true, "endSessions": true, "killCursors": true, "saslStart": true, "saslContinue": true,
	"find": true, "getMore": true, "count": true, "distinct": true, "aggregate": true, "explain": true,
	"listCollections": true, "listIndexes": true, "listDatabases": true,
	"collStats": true, "dbStats": true, "serverStatus": true, "getParameter": true,
}

// queries are the readers for which FerretDB takes a connection to its store. An open cursor has one already, for which
// others may wait.
var queries = map[string]bool{"find": true, "count": true, "distinct": true, "aggregate": true, "explain": true}

// readsOnly reports whether a request changes nothing. A message other than OP_MSG is the first hello of a driver.
func readsOnly(request message, cmd command) bool {
	return readers[cmd.name] || !request.isMsg()
}
