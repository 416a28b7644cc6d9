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

	"github.com/latchkey/latchkey/events"
)

// batch is how many documents the bare driver writes at once.
const batch = 500

func user(i int) string { return fmt.Sprint("user-", i) }

// connects measures how fast connects are stored, scheduled and announced, and
// leaves the users there. There is one round: a second one would find them.
func (b *run) connects(ctx context.Context) (Figure, error) {
	b.Progress(fmt.Sprintf("connecting %d users", b.Users))
	told := make(chan struct{}, b.Users)
	sub, err := b.nc.Subscribe(b.subjects.LifecycleAll(events.TokenStored), func(*nats.Msg) { told <- struct{}{} })
	if err != nil {
		return Figure{}, fmt.Errorf("listening to events: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails on a closed connection only
	begun := time.Now()
	for i := range b.Users {
		if _, err := b.js.PublishAsync(b.subjects.Connected(), connect(user(i)), jetstream.WithMsgID(user(i)), jetstream.WithStallWait(time.Minute)); err != nil {
			return Figure{}, fmt.Errorf("publishing connects: %w", err)
		}
	}
	for range b.Users {
		select {
		case <-told:
		case <-ctx.Done():
			return Figure{}, ctx.Err()
		case <-time.After(time.Minute):
			return Figure{}, errors.New("no connect was stored for a minute; see the log, at log.level info")
		}
	}
	f := Figure{Name: "connects stored, scheduled and announced", Unit: "connects/s", Against: "bulk upserts of the same documents"}
	f.Latchkey = []float64{float64(b.Users) / time.Since(begun).Seconds()}
	bare, err := b.upserts(ctx)
	f.Bare = []float64{bare}
	return f, err
}

// connect is a made up user's connect. Its tokens are none, and live too long to
// be refreshed.
func connect(user string) []byte {
	body, _ := json.Marshal(map[string]any{"userId": user, "payload": map[string]any{"accessToken": map[string]any{ // strings and numbers only
		"brokerType": "bench", "brokerName": "Bench", "expiresInSeconds": 30 * 86400, "refreshTokenExpiresInSeconds": 365 * 86400,
		"accountTokens": []any{map[string]any{
			"account":     map[string]any{"accountId": "account of " + user, "accountName": "Account"},
			"accessToken": "no token, but as long as many are: " + user, "refreshToken": "no refresh token either: " + user,
		}},
	}}})
	return body
}

// upserts has the bare driver write the same documents elsewhere.
func (b *run) upserts(ctx context.Context) (float64, error) {
	cursor, err := b.db.Collection("grants").Find(ctx, bson.D{})
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
		if _, err := b.db.Collection("bare").BulkWrite(ctx, part, options.BulkWrite().SetOrdered(false)); err != nil {
			return 0, fmt.Errorf("writing the documents: %w", err)
		}
	}
	return float64(len(docs)) / time.Since(begun).Seconds(), nil
}

// cold measures the first request for each user, of whom the worker keeps
// nothing yet.
func (b *run) cold(ctx context.Context) (Figure, error) {
	b.Progress("asking for each user once")
	f := Figure{Name: "first request for a user", Unit: "requests/s", Against: "FindOne of the same documents by _id"}
	var ids []any
	cursor, err := b.db.Collection("grants").Find(ctx, bson.D{}, options.Find().SetProjection(bson.D{{Key: "_id", Value: 1}}))
	if err != nil {
		return f, fmt.Errorf("reading the documents: %w", err)
	}
	var docs []bson.D
	if err := cursor.All(ctx, &docs); err != nil {
		return f, fmt.Errorf("reading the documents: %w", err)
	}
	for _, doc := range docs {
		ids = append(ids, doc[0].Value)
	}
	rate, p99, err := b.once(ctx, len(ids), func(i int) error {
		var doc bson.Raw
		return b.db.Collection("grants").FindOne(ctx, bson.D{{Key: "_id", Value: ids[i]}}).Decode(&doc)
	})
	if err != nil {
		return f, err
	}
	f.Bare, f.BareP99 = []float64{rate}, []float64{p99}
	rate, p99, err = b.once(ctx, b.Users, func(i int) error { _, err := b.ask(ctx, user(i)); return err })
	f.Latchkey, f.LatchkeyP99 = []float64{rate}, []float64{p99}
	return f, err
}

// warm measures requests for users of whom the worker has heard before.
func (b *run) warm(ctx context.Context) (Figure, error) {
	f := Figure{Name: "requests for users asked for before", Unit: "requests/s", Against: "a micro service that echoes the same reply"}
	reply, err := b.ask(ctx, user(0))
	if err != nil {
		return f, err
	}
	service, err := micro.AddService(b.nc, micro.Config{Name: "latchkey-bench", Version: "1.0.0"})
	if err != nil {
		return f, fmt.Errorf("starting the echo: %w", err)
	}
	defer func() { _ = service.Stop() }() // fails on a closed connection only
	echo := b.subjects.Prefix + ".echo"
	if err := service.AddEndpoint("echo", micro.HandlerFunc(func(r micro.Request) { _ = r.Respond(reply) }), micro.WithEndpointSubject(echo)); err != nil {
		return f, fmt.Errorf("starting the echo: %w", err)
	}
	for round := range b.Rounds {
		b.Progress(fmt.Sprintf("asking again and again, round %d of %d", round+1, b.Rounds))
		rate, p99, err := b.during(ctx, func(i int) error { _, err := b.nc.RequestWithContext(ctx, echo, request(user(i%b.Users))); return err })
		if err != nil {
			return f, err
		}
		f.Bare, f.BareP99 = append(f.Bare, rate), append(f.BareP99, p99)
		rate, p99, err = b.during(ctx, func(i int) error { _, err := b.ask(ctx, user(i%b.Users)); return err })
		if err != nil {
			return f, err
		}
		f.Latchkey, f.LatchkeyP99 = append(f.Latchkey, rate), append(f.LatchkeyP99, p99)
	}
	return f, nil
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
