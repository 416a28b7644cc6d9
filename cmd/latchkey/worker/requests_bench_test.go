package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/cmd/sandbox/engines/enginestest"
	"github.com/latchkey/latchkey/cmd/sandbox/stack"
	"github.com/latchkey/latchkey/config"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
)

// asking is how many requests of the benchmarks are under way at once.
const asking = 64

// BenchmarkTokenRequest measures requests for the tokens of users that a worker
// keeps, against a micro service that answers the same bytes to the same
// callers. "ratio" takes turns between the two, so that both share whatever else
// the machine does.
//
// LATCHKEY_BENCH_USERS sets how many users there are; the embedded database needs
// its time for many.
func BenchmarkTokenRequest(b *testing.B) {
	users := 200
	if n, err := strconv.Atoi(os.Getenv("LATCHKEY_BENCH_USERS")); err == nil {
		users = n
	}
	r := newRequests(b, users)
	b.Run("echo", func(b *testing.B) { r.report(b, r.run(b, b.N, r.echo)) })
	b.Run("token", func(b *testing.B) { r.report(b, r.run(b, b.N, r.token)) })
	b.Run("ratio", func(b *testing.B) {
		var echo, token sample
		for left := b.N; left > 0; left -= turn {
			echo.add(r.run(b, min(left, turn), r.echo))
			token.add(r.run(b, min(left, turn), r.token))
		}
		b.ReportMetric(token.rate()/echo.rate(), "of-echo")
		b.ReportMetric(token.p99()/echo.p99(), "of-echo-p99")
		b.ReportMetric(echo.work()/token.work(), "of-echo-cpu")
	})
}

// turn is how many requests one side makes before it is the other's turn.
const turn = 10_000

// requests is a worker, an echo and their callers, each with a connection of
// their own.
type requests struct {
	nc *nats.Conn
	// One for each user.
	tokens, echoes []string // subjects
	bodies         [][]byte
}

func newRequests(b *testing.B, users int) *requests {
	engines, err := stack.Start(stack.Options{Dir: b.TempDir()})
	require.NoError(b, err)
	b.Cleanup(engines.Stop)
	cfg, err := engines.Config("LATCHKEY_ADMIN_LISTEN=", "LATCHKEY_WORKER_LOCK_MEMORY=off", "LATCHKEY_TOKENS_CACHE_AGE=1h")
	require.NoError(b, err)
	r := &requests{}
	for _, user := range insertUsers(b, cfg, users) {
		body, err := json.Marshal(events.TokenRequest{UserID: user})
		require.NoError(b, err)
		r.bodies = append(r.bodies, body)
		r.tokens, r.echoes = append(r.tokens, events.Subjects{}.TokenGet(user)), append(r.echoes, "echo."+user)
	}

	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), &enginestest.Text{}, zap.InfoLevel))
	go func() {
		done <- worker.Run(ctx, cfg, worker.Options{Log: log, Metrics: prometheus.NewRegistry(), Ready: func() { close(ready) }})
	}()
	b.Cleanup(func() {
		cancel()
		require.NoError(b, <-done)
	})
	select {
	case <-ready:
	case err := <-done:
		b.Fatal(err)
	}
	require.NoError(b, engines.Ready(ctx))

	connect := func() *nats.Conn {
		nc, err := nats.Connect(cfg.NATS.URL)
		require.NoError(b, err)
		b.Cleanup(nc.Close)
		return nc
	}
	r.nc = connect()
	var reply []byte
	for i := range r.bodies { // the worker keeps them from now on
		reply = r.token(b, i)
	}
	echoes := connect()
	service, err := micro.AddService(echoes, micro.Config{Name: "echo", Version: "1.0.0"})
	require.NoError(b, err)
	echo := func(req micro.Request) { _ = req.Respond(reply) }
	require.NoError(b, service.AddEndpoint("echo", micro.HandlerFunc(echo), micro.WithEndpointSubject("echo.*")))
	require.NoError(b, echoes.Flush())
	return r
}

// insertUsers stores as many users, each with a grant whose tokens outlive the
// benchmark and are in use.
func insertUsers(b *testing.B, cfg config.Config, n int) (users []string) {
	ctx := b.Context()
	db, err := worker.OpenStore(ctx, cfg.MongoDB)
	require.NoError(b, err)
	defer func() { require.NoError(b, db.Close(context.WithoutCancel(ctx))) }()
	require.NoError(b, db.Ensure(ctx))
	sealing, err := worker.Envelope(ctx, cfg, db, time.Now, nil)
	require.NoError(b, err)
	defer sealing.Close()
	now := store.Milli(time.Now())
	ends, endsLater := now.Add(24*time.Hour), now.Add(90*24*time.Hour)
	for i := range n {
		user, account := fmt.Sprint("user-", i), fmt.Sprint("account of user-", i)
		g := &store.Grant{
			ID: store.GrantID(user, "bench", account), UserID: user, BrokerType: "bench", BrokerName: "Bench", State: store.Active,
			Accounts: []store.Account{{ID: account, Name: "Account", ExpiresAt: &ends}}, ConnectedAt: now, Version: 1, UsedIn: 1,
			Access: &store.Lifetime{Since: now, ExpiresAt: &ends}, Refresh: &store.Lifetime{Since: now, ExpiresAt: &endsLater},
		}
		sealer, err := sealing.Sealer(ctx, user)
		require.NoError(b, err)
		g.Sealed = store.SealTokens(sealer, store.TokenSet{
			Accounts:     []store.AccountToken{{AccountID: account, AccessToken: secret.New("no token, but as long as many are: " + strings.Repeat(user, 8))}},
			RefreshToken: secret.New("no refresh token either: " + strings.Repeat(user, 8)),
		}, g.Binding())
		require.NoError(b, db.Insert(ctx, g))
		users = append(users, user)
	}
	return users
}

// token asks the worker for the tokens of the i-th user, echo the echo for the
// same.
func (r *requests) token(b *testing.B, i int) []byte { return r.ask(b, r.tokens[i], i) }
func (r *requests) echo(b *testing.B, i int) []byte  { return r.ask(b, r.echoes[i], i) }

func (r *requests) ask(b *testing.B, subject string, i int) []byte {
	msg, err := r.nc.Request(subject, r.bodies[i], time.Minute)
	if err != nil {
		b.Error(err)
		return nil
	}
	if code := msg.Header.Get(micro.ErrorHeader); code != "" {
		b.Errorf("refused: %s", code)
	}
	return msg.Data
}

// sample is what a number of requests took.
type sample struct {
	each         []time.Duration
	elapsed, cpu time.Duration // cpu is that of the whole process, engines and callers too
}

func (s *sample) add(o sample) {
	s.each = append(s.each, o.each...)
	s.elapsed += o.elapsed
	s.cpu += o.cpu
}

// rate is in requests a second, p99 in milliseconds, work in microseconds of CPU a
// request.
func (s sample) rate() float64 { return float64(len(s.each)) / s.elapsed.Seconds() }
func (s sample) work() float64 { return float64(s.cpu.Microseconds()) / float64(len(s.each)) }
func (s sample) p99() float64 {
	slices.Sort(s.each)
	return float64(s.each[len(s.each)*99/100].Microseconds()) / 1000
}

// run makes n requests, round robin over the users.
func (r *requests) run(b *testing.B, n int, ask func(*testing.B, int) []byte) sample {
	each := make([]time.Duration, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	begun, before := time.Now(), processTime(b)
	for range asking {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && !b.Failed(); i = int(next.Add(1)) - 1 {
				at := time.Now()
				ask(b, i%len(r.bodies))
				each[i] = time.Since(at)
			}
		})
	}
	wg.Wait()
	return sample{each, time.Since(begun), processTime(b) - before}
}

func processTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func (r *requests) report(b *testing.B, s sample) {
	b.ReportMetric(s.rate(), "requests/s")
	b.ReportMetric(s.p99(), "p99-ms")
	b.ReportMetric(s.work(), "cpu-µs/op")
}
