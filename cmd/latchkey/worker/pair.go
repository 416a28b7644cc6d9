package worker

import (
	"crypto/tls"
	"sync"

	"go.uber.org/zap"
)

// pair is a certificate and its key in two files, which may be replaced while the
// worker runs.
type pair struct {
	certFile, keyFile string
	log               *zap.Logger

	mu     sync.Mutex
	last   *tls.Certificate
	failed string // the last failure, so that each is logged once
}

func newPair(certFile, keyFile string, log *zap.Logger) (*pair, error) {
	loaded, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	return &pair{certFile: certFile, keyFile: keyFile, log: log, last: &loaded}, nil
}

// current returns the pair as the files say now, for each connection. Where they can't be
// read, or one is replaced and the other not yet, it is the last one.
func (p *pair) current(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	loaded, err := tls.LoadX509KeyPair(p.certFile, p.keyFile)
	if err != nil {
		if p.failed != err.Error() {
			p.failed = err.Error()
			p.log.Warn("admin.cert_file and admin.key_file can't be read; the last certificate is used", zap.Error(err))
		}
		return p.last, nil
	}
	p.last, p.failed = &loaded, ""
	return p.last, nil
}
