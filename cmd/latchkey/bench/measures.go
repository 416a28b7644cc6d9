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

// The collections of the worker and of the bare engine.
const (
	grants = "grants"
	bare   = "bare"
)

// batch is how many documents the bare driver writes at once.
const batch = 500

// long bounds the reading of all documents of a round.
const long = 10 * time.Minute

// broker is what all grants are of.
const broker = "bench"

func user(round, i int) string { return fmt.Sprint(usersOf(round), i) }

func usersOf(round int) string { return fmt.Sprint("round-", round+1, "-user-") }

func accountOf(user string) string { return "account of " + user }

// Alternately does two things, the first of them first in every other round: what
// comes second finds caches filled.
func Alternately(round int, a, b func() error) error {
	if round%2 == 1 {
		a, b = b, a
	}
	if err := a(); err != nil {
		return err
	}
	return b()
}

// connects measures how fast connects are stored, scheduled and announced that
// are published as fast as NATS takes them, and leaves the users there. Each round
// has users of its own.
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

// warmUp has the worker, and the bare engine, do a little of everything, and
// makes sure that there are not more users than there is time for.
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

// warmUpRound is the round of users that are not measured.
const warmUpRound = -1

// connect has the worker handle the connects of one round, and returns how many
// it stored a second.
func (b *run) connect(ctx context.Context, round, users int) (rate float64, err error) {
	var told atomic.Int64
	all, some := make(chan struct{}), make(chan struct{}, 1)
	sub, err := b.nc.Subscribe(b.subjects.LifecycleAll(events.TokenStored), func(*nats.Msg) {
		if told.Add(1) == int64(users) {
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

// ConnectOf is the connect of a user who is made up. Its tokens are none, and
// live too long to be refreshed.
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

// upserts has the bare driver write the documents of a round elsewhere, in bulk, and
// returns how many a second.
func (b *run) upserts(ctx context.Context, round int) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, long)
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

// cold measures the first request for each user, of whom the worker keeps
// nothing yet.
func (b *run) cold(ctx context.Context) (Figure, error) {
	f := Figure{Name: "first request for a user", Unit: "requests/s", Users: b.Users, Against: "FindOne of the same documents by _id"}
	for round := range b.Rounds {
		b.Progress(fmt.Sprintf("asking for each user once, round %d of %d", round+1, b.Rounds))
		err := Alternately(round, func() error {
			rate, p99, err := b.once(ctx, b.Users, func(i int) error {
				user := user(round, i)
				var doc bson.Raw
				return b.db.Collection(grants).FindOne(ctx, bson.D{{Key: "_id", Value: store.GrantID(user, broker, accountOf(user))}}).Decode(&doc)
			})
			f.Bare, f.BareP99 = append(f.Bare, rate), append(f.BareP99, p99)
			return err
		}, func() error {
			rate, p99, err := b.once(ctx, b.Users, func(i int) error { _, err := b.ask(ctx, user(round, i)); return err })
			f.Latchkey, f.LatchkeyP99 = append(f.Latchkey, rate), append(f.LatchkeyP99, p99)
			return err
		})
		if err != nil {
			return f, err
		}
	}
	return f, nil
}

// warm measures requests for users of whom the worker has heard before.
func (b *run) warm(ctx context.Context) (Figure, error) {
	f := Figure{Name: "requests for users asked for before", Unit: "requests/s", Users: b.Warm, Against: "a micro service that echoes the same reply"}
	reply, err := b.ask(ctx, user(0, 0))
	if err != nil {
		return f, err
	}
	nc, err := worker.Connect(b.cfg.NATS, "bench echo", b.Log) // of its own, as a worker has
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
	if err := nc.Flush(); err != nil { // from here on the server knows
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
	bare := func() (rate, p99 float64, err error) {
		reading, stop := context.WithCancel(ctx)
		read := make(chan error, 1)
		go func() { read <- besides(reading) }()
		rate, p99, err = b.during(ctx, echo)
		stop()
		return rate, p99, errors.Join(err, <-read)
	}
	asked := func() (rate, p99 float64, err error) {
		return b.during(ctx, func(i int) error { _, err := b.ask(ctx, user(0, i%b.Warm)); return err })
	}
	// In the first round all are asked for the first time since their connect,
	// which is noted in the database.
	b.Progress("asking again and again, to warm up")
	for _, do := range []func() (float64, float64, error){bare, asked} {
		if _, _, err := do(); err != nil {
			return f, err
		}
	}
	for round := range b.Rounds {
		b.Progress(fmt.Sprintf("asking again and again, round %d of %d", round+1, b.Rounds))
		err := Alternately(round, func() error {
			rate, p99, err := bare()
			f.Bare, f.BareP99 = append(f.Bare, rate), append(f.BareP99, p99)
			return err
		}, func() error {
			rate, p99, err := asked()
			f.Latchkey, f.LatchkeyP99 = append(f.Latchkey, rate), append(f.LatchkeyP99, p99)
			return err
		})
		if err != nil {
			return f, err
		}
	}
	return f, nil
}

// reads looks users up as a worker does who are asked for all the time: each once
// the time is over for which it is kept.
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

// ask asks for a user's tokens and returns the reply as it came.
func (b *run) ask(ctx context.Context, user string) ([]byte, error) {
	msg, err := b.nc.RequestWithContext(ctx, b.subjects.TokenGet(user), request(user))
	if err != nil {
		return nil, fmt.Errorf("asking for tokens: %w", err)
	}
	if code := msg.Header.Get(micro.ErrorHeader); code != "" {
		return nil, fmt.Errorf("a token request was refused: %s", code)
	}
	return msg.Data, nil
}

// once does something for each number below n, by all callers.
func (b *run) once(ctx context.Context, n int, do func(i int) error) (rate, p99 float64, err error) {
	return b.callers(ctx, func(i int) bool { return i < n }, do)
}

// during does something again and again for the configured time.
func (b *run) during(ctx context.Context, do func(i int) error) (rate, p99 float64, err error) {
	end := time.Now().Add(b.Duration)
	return b.callers(ctx, func(int) bool { return time.Now().Before(end) }, do)
}

// callers has all callers take numbers and do something with them while more
// says so. It returns how many were done a second, and the 99th percentile of
// how long one took, in milliseconds.
func (b *run) callers(ctx context.Context, more func(i int) bool, do func(i int) error) (rate, p99 float64, err error) {
	var next atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	var failed error
	var wg sync.WaitGroup
	begun := time.Now()
	for range b.Callers {
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
