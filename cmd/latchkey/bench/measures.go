package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"

	"github.com/latchkey/latchkey/cmd/latchkey/worker"
	"github.com/latchkey/latchkey/events"
	"github.com/latchkey/latchkey/store"
)

// Collections of the worker and of the bare driver.
const (
	grants = "grants"
	bare   = "bare"
)

// batch is how many documents the bare driver writes at once.
const batch = 500

// upsertTimeout bounds reading and writing all documents of a round.
const upsertTimeout = 10 * time.Minute

// broker is the broker type of all grants.
const broker = "bench"

func user(round, i int) string { return fmt.Sprint(usersOf(round), i) }

func usersOf(round int) string { return fmt.Sprint("round-", round+1, "-user-") }

func accountOf(user string) string { return "account of " + user }

// connects measures how fast the worker handles connects that are published as fast as
// NATS accepts them. Each round has its own users, who stay.
func (b *run) connects(ctx context.Context) (f Figure, err error) {
	stop, err := b.start(ctx)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := b.prepare(ctx); err != nil {
		return f, err
	}
	if err := b.warmUp(ctx); err != nil {
		return f, err
	}
	f = Figure{Name: "connects stored, scheduled and announced", Unit: "connects/s", Users: b.Users, Against: "bulk upserts of the same documents"}
	for round := range b.Rounds {
		b.Progress(fmt.Sprintf("connecting %d users, round %d of %d", b.Users, round+1, b.Rounds))
		rate, err := b.connect(ctx, round, b.Users)
		if err != nil {
			return f, err
		}
		f.Latchkey = append(f.Latchkey, rate)
		if rate, err = b.upserts(ctx, round); err != nil {
			return f, err
		}
		f.Bare = append(f.Bare, rate)
	}
	return f, nil
}

// warmUp runs a small round, and reduces the users to as many as there is time for.
func (b *run) warmUp(ctx context.Context) error {
	b.Progress("warming up")
	few := max(b.Users/20, 1)
	rate, err := b.connect(ctx, warmUpRound, few)
	if err != nil {
		return err
	}
	if most := int(rate * b.Longest.Seconds()); b.Longest > 0 && most < b.Users {
		b.Users = max(most, few)
	}
	if b.Warm == 0 || b.Warm > b.Users {
		b.Warm = b.Users
	}
	_, err = b.upserts(ctx, warmUpRound)
	return err
}

// warmUpRound is a round that is not measured.
const warmUpRound = -1

// connect publishes the connects of one round, and returns how many the worker stored a
// second.
func (b *run) connect(ctx context.Context, round, users int) (rate float64, err error) {
	var stored atomic.Int64
	all, some := make(chan struct{}), make(chan struct{}, 1)
	sub, err := b.nc.Subscribe(b.subjects.LifecycleAll(events.TokenStored), func(*nats.Msg) {
		if stored.Add(1) == int64(users) {
			close(all)
		}
		select {
		case some <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return 0, fmt.Errorf("listening to events: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails on a closed connection only
	begun := time.Now()
	for i := range users {
		user := user(round, i)
		if _, err := b.js.PublishAsync(b.subjects.Connected(), ConnectOf(user), jetstream.WithMsgID(user), jetstream.WithStallWait(time.Minute)); err != nil {
			return 0, fmt.Errorf("publishing connects: %w", err)
		}
	}
	for {
		select {
		case <-all:
			return float64(users) / time.Since(begun).Seconds(), nil
		case <-some:
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(time.Minute):
			return 0, errors.New("no connect was stored for a minute; see the log, at log.level info")
		}
	}
}

// ConnectOf returns a connect of a made-up user. Its tokens are not real, and live too
// long to be refreshed.
func ConnectOf(user string) []byte {
	body, _ := json.Marshal(map[string]any{"userId": user, "payload": map[string]any{"accessToken": map[string]any{ // strings and numbers only
		"brokerType": broker, "brokerName": "Bench", "expiresInSeconds": 30 * 86400, "refreshTokenExpiresInSeconds": 365 * 86400,
		"accountTokens": []any{map[string]any{
			"account":     map[string]any{"accountId": accountOf(user), "accountName": "Account"},
			"accessToken": "no token, but as long as many are: " + user, "refreshToken": "no refresh token either: " + user,
		}},
	}}})
	return body
}

// upserts writes copies of the documents of a round with the bare driver, in bulk, and
// returns how many a second.
func (b *run) upserts(ctx context.Context, round int) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, upsertTimeout)
	defer cancel()
	cursor, err := b.db.Collection(grants).Find(ctx, bson.D{{Key: "user", Value: bson.D{{Key: "$regex", Value: "^" + usersOf(round)}}}})
	if err != nil {
		return 0, fmt.Errorf("reading the documents: %w", err)
	}
	var docs []bson.D
	if err := cursor.All(ctx, &docs); err != nil {
		return 0, fmt.Errorf("reading the documents: %w", err)
	}
	var writes []mongo.WriteModel
	for _, doc := range docs {
		writes = append(writes, mongo.NewReplaceOneModel().SetFilter(bson.D{{Key: "_id", Value: doc[0].Value}}).SetReplacement(doc).SetUpsert(true))
	}
	begun := time.Now()
	for part := range slices.Chunk(writes, batch) {
		if _, err := b.db.Collection(bare).BulkWrite(ctx, part, options.BulkWrite().SetOrdered(false)); err != nil {
			return 0, fmt.Errorf("writing the documents: %w", err)
		}
	}
	return float64(len(docs)) / time.Since(begun).Seconds(), nil
}

// measurement measures one side of a round: how many a second, and the 99th percentile
// of how long one takes, in milliseconds.
type measurement func(round int) (rate, p99 float64, err error)

// alternate measures both sides in each round. They take turns in being first: the second
// one finds caches filled.
func (b *run) alternate(f *Figure, doing string, bare, latchkey measurement) error {
	for round := range b.Rounds {
		b.Progress(fmt.Sprintf("%s, round %d of %d", doing, round+1, b.Rounds))
		for turn := range 2 {
			side, rates, p99s := bare, &f.Bare, &f.BareP99
			if (round+turn)%2 == 1 {
				side, rates, p99s = latchkey, &f.Latchkey, &f.LatchkeyP99
			}
			rate, p99, err := side(round)
			if err != nil {
				return err
			}
			*rates, *p99s = append(*rates, rate), append(*p99s, p99)
		}
	}
	return nil
}

// cold measures the first request for each user, whom the worker does not cache yet.
func (b *run) cold(ctx context.Context) (Figure, error) {
	f := Figure{Name: "first request for a user", Unit: "requests/s", Users: b.Users, Against: "FindOne of the same documents by _id"}
	err := b.alternate(&f, "asking for each user once", func(round int) (rate, p99 float64, err error) {
		return b.once(ctx, b.Users, func(i int) error {
			user := user(round, i)
			var doc bson.Raw
			return b.db.Collection(grants).FindOne(ctx, bson.D{{Key: "_id", Value: store.GrantID(user, broker, accountOf(user))}}).Decode(&doc)
		})
	}, func(round int) (rate, p99 float64, err error) {
		return b.once(ctx, b.Users, func(i int) error { _, err := b.ask(ctx, user(round, i)); return err })
	})
	return f, err
}

// warm measures repeated requests for the same users.
func (b *run) warm(ctx context.Context) (Figure, error) {
	f := Figure{Name: "requests for users asked for before", Unit: "requests/s", Users: b.Warm, Against: "a micro service that echoes the same reply"}
	reply, err := b.ask(ctx, user(0, 0))
	if err != nil {
		return f, err
	}
	nc, err := worker.Connect(b.cfg.NATS, "bench echo", b.Log) // its own, like a worker's
	if err != nil {
		return f, err
	}
	defer nc.Close()
	service, err := micro.AddService(nc, micro.Config{Name: "latchkey-bench", Version: "1.0.0"})
	if err != nil {
		return f, fmt.Errorf("starting the echo: %w", err)
	}
	defer func() { _ = service.Stop() }() // fails on a closed connection only
	subject := b.subjects.Prefix + ".echo"
	if err := service.AddEndpoint("echo", micro.HandlerFunc(func(r micro.Request) { _ = r.Respond(reply) }), micro.WithEndpointSubject(subject)); err != nil {
		return f, fmt.Errorf("starting the echo: %w", err)
	}
	if err := nc.Flush(); err != nil { // the server has the subscription now
		return f, fmt.Errorf("starting the echo: %w", err)
	}
	besides := func(context.Context) error { return nil }
	if b.SameReads {
		f.Against += ", while the users are read from the database as often as the worker does"
		db, err := worker.OpenStore(ctx, b.cfg.MongoDB)
		if err != nil {
			return f, err
		}
		defer func() { _ = db.Close(context.WithoutCancel(ctx)) }() // it has written nothing
		besides = func(ctx context.Context) error {
			return b.reads(ctx, func(user string) error { _, err := db.ByUser(ctx, user); return err })
		}
	}
	echo := func(i int) error {
		_, err := b.nc.RequestWithContext(ctx, subject, request(user(0, i%b.Warm)))
		return err
	}
	bare := func(int) (rate, p99 float64, err error) {
		reading, stop := context.WithCancel(ctx)
		read := make(chan error, 1)
		go func() { read <- besides(reading) }()
		rate, p99, err = b.during(ctx, echo)
		stop()
		return rate, p99, errors.Join(err, <-read)
	}
	asked := func(int) (rate, p99 float64, err error) {
		return b.during(ctx, func(i int) error { _, err := b.ask(ctx, user(0, i%b.Warm)); return err })
	}
	// The first request for a user since its connect is noted in the database.
	b.Progress("asking again and again, to warm up")
	for _, do := range []measurement{bare, asked} {
		if _, _, err := do(0); err != nil {
			return f, err
		}
	}
	err = b.alternate(&f, "asking again and again", bare, asked)
	return f, err
}

// reads looks users up as often as a worker does for constant requests: each whenever
// the cache would expire.
func (b *run) reads(ctx context.Context, read func(user string) error) error {
	often := time.NewTicker(max(b.cfg.Tokens.CacheAge, time.Millisecond))
	defer often.Stop()
	for {
		var all errgroup.Group
		all.SetLimit(b.Callers)
		for i := range b.Warm {
			all.Go(func() error { return read(user(0, i)) })
		}
		if err := all.Wait(); ctx.Err() != nil {
			return nil
		} else if err != nil {
			return err
		}
		select {
		case <-often.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func request(user string) []byte {
	body, _ := json.Marshal(events.TokenRequest{UserID: user}) // strings only
	return body
}

// ask requests a user's tokens and returns the body of the reply.
func (b *run) ask(ctx context.Context, user string) ([]byte, error) {
	return Request(ctx, b.nc, b.subjects.TokenGet(user), request(user))
}

// Request requests tokens and returns the body of the reply. A refusal is an error.
func Request(ctx context.Context, nc *nats.Conn, subject string, body []byte) ([]byte, error) {
	msg, err := nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		return nil, fmt.Errorf("asking for tokens: %w", err)
	}
	if code := msg.Header.Get(micro.ErrorHeader); code != "" {
		return nil, fmt.Errorf("a token request was refused: %s", code)
	}
	return msg.Data, nil
}

// once calls do for each number below n.
func (b *run) once(ctx context.Context, n int, do func(i int) error) (rate, p99 float64, err error) {
	return calls(ctx, b.Callers, func(i int) bool { return i < n }, do)
}

// during calls do with growing numbers for the configured time.
func (b *run) during(ctx context.Context, do func(i int) error) (rate, p99 float64, err error) {
	return Calls(ctx, b.Callers, b.Duration, do)
}

// Calls has several callers call do with growing numbers for some time. It returns how
// many a second, and the 99th percentile of the durations in milliseconds.
func Calls(ctx context.Context, callers int, length time.Duration, do func(i int) error) (rate, p99 float64, err error) {
	end := time.Now().Add(length)
	return calls(ctx, callers, func(int) bool { return time.Now().Before(end) }, do)
}

// calls is Calls as long as more allows it.
func calls(ctx context.Context, callers int, more func(i int) bool, do func(i int) error) (rate, p99 float64, err error) {
	var next atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	var failed error
	var wg sync.WaitGroup
	begun := time.Now()
	for range callers {
		wg.Go(func() {
			var mine []time.Duration
			var err error
			for i := int(next.Add(1)) - 1; err == nil && ctx.Err() == nil && more(i); i = int(next.Add(1)) - 1 {
				at := time.Now()
				err = do(i)
				mine = append(mine, time.Since(at))
			}
			mu.Lock()
			defer mu.Unlock()
			took, failed = append(took, mine...), errors.Join(failed, err)
		})
	}
	wg.Wait()
	elapsed := time.Since(begun)
	if failed != nil || ctx.Err() != nil || len(took) == 0 {
		return 0, 0, errors.Join(failed, ctx.Err())
	}
	slices.Sort(took)
	return float64(len(took)) / elapsed.Seconds(), float64(took[len(took)*99/100].Microseconds()) / 1000, nil
}
