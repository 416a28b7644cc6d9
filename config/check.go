package config

import (
	"fmt"
	"net"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/latchkey/latchkey/events/secret"
)

// Validate returns an [*Error] with all faults of the values. [Load] validates too.
func (c Config) Validate() error { return c.check().err() }

// longest limits every duration, so that sums of them can't overflow.
const longest = 10 * 365 * day

var (
	workerID       = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)
	adminToken     = regexp.MustCompile(`^[!-~]{16,1000}$`)
	brokerType     = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)
	brokerTypeForm = "must consist of broker types of up to 64 letters, digits, dots, dashes and underscores"
)

func (c Config) check() faults {
	var f faults
	c.checkProcess(&f)
	c.checkNATS(&f)
	c.checkStorage(&f)
	c.checkMesh(&f)
	c.checkRefresh(&f)
	c.checkFlow(&f)
	c.checkAudit(&f)
	c.checkTracing(&f)
	c.checkSecrets(&f)
	return f
}

func (c Config) checkProcess(f *faults) {
	f.unless(workerID.MatchString(c.Worker.ID), "worker.id",
		"must be 1 to 128 letters, digits, dots, dashes and underscores")
	f.duration("worker.grace", c.Worker.Grace, time.Second)
	f.atLeast("worker.grace", c.Worker.Grace, c.Mesh.Timeout+c.MongoDB.Timeout, "mesh.timeout + mongodb.timeout")
	f.duration("worker.clock_skew", c.Worker.ClockSkew, 0)
	f.oneOf("worker.lock_memory", c.Worker.LockMemory, "auto", "required", "off")
	f.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	f.oneOf("log.format", c.Log.Format, "json", "console")
	f.unless(c.Admin.Listen == "" || isListenAddress(c.Admin.Listen), "admin.listen",
		"must be host:port with a port from 0 to 65535, or empty")
	f.unless(c.Admin.Token.Empty() || adminToken.MatchString(c.Admin.Token.Reveal()), "admin.token",
		"must be at least 16 ASCII characters without spaces, or empty")
	f.unless((c.Admin.CertFile == "") == (c.Admin.KeyFile == ""), "admin.cert_file", "must be set together with admin.key_file")
	f.unless(!c.Admin.Pprof || !c.Admin.Token.Empty(), "admin.pprof", "needs admin.token, also on a loopback address")
}

func isListenAddress(s string) bool {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

func (c Config) checkSecrets(f *faults) {
	for _, leaf := range leaves("", reflect.ValueOf(&c).Elem()) {
		if leaf.isSecret() {
			text := leaf.value.Interface().(secret.Text).Reveal()
			f.unless(!strings.ContainsFunc(text, unicode.IsControl), leaf.key,
				"must be one line without control characters")
		}
	}
}

// unless adds a fault if the condition is false and the key has no fault yet.
func (fs *faults) unless(ok bool, key, problem string) {
	if !ok && !fs.about(key) {
		fs.add(key, "%s", problem)
	}
}

// required is unless for a value without a default.
func (fs *faults) required(ok, given bool, key, problem string) {
	before := len(*fs)
	fs.unless(ok, key, problem)
	for i := range (*fs)[before:] {
		(*fs)[before+i].Missing = !given
	}
}

func (fs *faults) oneOf(key, value string, allowed ...string) {
	fs.unless(slices.Contains(allowed, value), key, "must be one of "+strings.Join(allowed, ", "))
}

func (fs *faults) duration(key string, d, least time.Duration) {
	fs.unless(least <= d && d <= longest, key, fmt.Sprintf("must be from %s to %s", short(least), short(longest)))
}

func (fs *faults) atLeast(key string, d, least time.Duration, terms string) {
	fs.unless(d >= least, key, fmt.Sprintf("must be at least %s (%s)", terms, short(least)))
}

func (fs *faults) count(key string, n, least, most int) {
	fs.amount(key, int64(n), int64(least), int64(most))
}

func (fs *faults) amount(key string, n, least, most int64) {
	fs.unless(least <= n && n <= most, key, fmt.Sprintf("must be from %d to %d", least, most))
}
