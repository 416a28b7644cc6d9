package engines

import (
	"errors"
	"fmt"
	"net"
	"time"
)

// session is one client's connection through the proxy.
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

// serve answers the client until either side closes its connection.
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

// do has FerretDB do a request, and plays the faults if it may write.
func (s *session) do(request message, faults faults) (message, error) {
	cmd, _ := request.command()
	if readsOnly(request, cmd) {
		return s.read(request, cmd)
	}
	if faults.fail != nil && faults.fail(cmd.name, cmd.collection) {
		return errorMessage(request.requestID(), faults.failCode, fmt.Sprintf("%s made to fail", cmd.name)), nil
	}
	response, err := s.writeAll(request, cmd)
	if err == nil && faults.lose != nil && faults.lose(cmd.name, cmd.collection) {
		return nil, errLost
	}
	return response, err
}

// read has FerretDB do a request that changes nothing.
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

// writeAll has FerretDB do a request that may write.
func (s *session) writeAll(request message, cmd command) (message, error) {
	if parts := cmd.bulk(); parts != nil {
		return s.writeBulk(request.requestID(), parts)
	}
	return s.write(request, cmd)
}

// write has FerretDB do a request of one statement, or of inserts, while nothing else writes to the same documents.
func (s *session) write(request message, cmd command) (message, error) {
	unlock := s.proxy.writing.lock(cmd)
	defer unlock()
	return s.writeAlone(request, cmd)
}

// writeAlone is write for a caller who holds the locks.
func (s *session) writeAlone(request message, cmd command) (message, error) {
	defer s.proxy.enter()()
	if w, ok := cmd.conditional(); ok && s.proxy.splits {
		return s.writeConditional(request, w)
	}
	return s.exchange(request)
}

// writeConditional does a request in the two steps that conditional describes, or as it is if they do not fit it.
func (s *session) writeConditional(request message, w conditional) (message, error) {
	probe, err := w.probe()
	if err != nil {
		return nil, err
	}
	answer, err := s.exchange(probe)
	if err != nil {
		return nil, err
	}
	found, ok := probed(answer)
	if !ok {
		return s.exchange(request)
	}
	if request, err = w.split(request.requestID(), found); err != nil {
		return nil, err
	}
	return s.exchange(request)
}

// exchange sends FerretDB one request and reads its answer.
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

// queries are the readers for which FerretDB takes a connection to its store. A cursor that is read on has one already,
// which others may wait for.
var queries = map[string]bool{"find": true, "count": true, "distinct": true, "aggregate": true, "explain": true}

// readsOnly reports whether a request changes nothing. A message that is no OP_MSG is the first hello of a driver.
func readsOnly(request message, cmd command) bool {
	return readers[cmd.name] || !request.isMsg()
}
