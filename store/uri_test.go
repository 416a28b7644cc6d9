package store_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey/latchkey/events/secret"
	"github.com/latchkey/latchkey/store"
)

// A connection string may ask for what would weaken what the store guarantees.
var weakening = []struct {
	query      string
	overridden []string
}{
	{"", nil},
	{"w=majority&journal=true&readConcernLevel=majority&readPreference=primary", nil},
	{"readPreference=primaryPreferred", []string{"readPreference"}},
	{"readPreference=secondary", []string{"readPreference"}},
	{"readPreference=secondaryPreferred", []string{"readPreference"}},
	{"readPreference=nearest&localThresholdMS=10000", []string{"readPreference"}},
	{"readPreference=secondaryPreferred&readPreferenceTags=dc:a&readPreferenceTags=", []string{"readPreference"}},
	{"readPreference=secondaryPreferred&maxStalenessSeconds=100", []string{"readPreference"}},
	{"READPREFERENCE=SECONDARY", []string{"readPreference"}},
	{"readConcernLevel=local", []string{"readConcernLevel"}},
	{"readConcernLevel=available", []string{"readConcernLevel"}},
	{"w=0", []string{"w"}},
	{"w=1", []string{"w"}},
	{"w=1&journal=false", []string{"w", "journal"}},
	{"w=majority&journal=false", []string{"journal"}},
	{"w=a-tag", []string{"w"}},
	{"timeoutMS=1", []string{"timeoutMS"}},
	{"timeoutMS=0&serverSelectionTimeoutMS=1", []string{"timeoutMS", "serverSelectionTimeoutMS"}},
	{"retryWrites=false&retryReads=false", nil},
	{"maxPoolSize=1&compressors=zlib&heartbeatFrequencyMS=500", nil},
	{"readPreference=nearest&readConcernLevel=local&w=1&journal=false&retryWrites=false&replicaSet=rs", []string{"readPreference", "readConcernLevel", "w", "journal"}},
}

// unrepeated are the methods whose write is of many documents, which the
// driver does not repeat.
var unrepeated = []string{"PurgeAuditHeads", "PurgeRevocations", "RetireUserKeys"}

func TestReadsAreThePrimarysAndWritesAMajoritys(t *testing.T) {
	for _, c := range weakening {
		t.Run(c.query, func(t *testing.T) {
			t.Parallel()
			members := replicaSet(t, 2)
			s := connect(t, store.Options{
				URI:      secret.New("mongodb://" + members[1].addr + "," + members[0].addr + "/?" + c.query),
				Database: "d", Timeout: time.Minute, AppName: "store-test",
			})
			require.Equal(t, c.overridden, s.Overridden())
			all := calls(s)
			for _, name := range slices.Sorted(maps.Keys(all)) {
				members[0].take()
				_ = all[name](t.Context())
				commands := members[0].take()
				require.NotEmpty(t, commands, name)
				for _, command := range commands {
					require.Empty(t, mode(command.body), "%s: %v", name, command.body)
					switch command.name {
					case "find", "aggregate":
						require.Equal(t, bson.D{{Key: "level", Value: "majority"}}, field(t, command.body, "readConcern"), "%s: %v", name, command.body)
					case "insert", "update", "delete", "findAndModify":
						require.Equal(t, bson.D{{Key: "w", Value: "majority"}, {Key: "j", Value: true}}, field(t, command.body, "writeConcern"), "%s: %v", name, command.body)
						repeated := !slices.Contains(unrepeated, name) && !strings.Contains(c.query, "retryWrites=false")
						require.Equal(t, repeated, field(t, command.body, "txnNumber") != nil, "%s: %v", name, command.body)
					default:
						t.Fatalf("%s sends %s", name, command.name)
					}
				}
			}
			require.NoError(t, s.Ensure(t.Context()))
			for _, command := range members[0].take() {
				if command.name == "listIndexes" {
					continue // which writes nothing
				}
				require.Equal(t, bson.D{{Key: "w", Value: "majority"}, {Key: "j", Value: true}}, field(t, command.body, "writeConcern"), "%v", command.body)
			}
			require.Empty(t, members[1].take(), "a secondary was asked")
		})
	}
}

// mode is the read preference in a command; that of the primary is not sent.
func mode(command bson.Raw) string {
	mode, _ := command.Lookup("$readPreference", "mode").StringValueOK()
	return mode
}

// field decodes a field of a command; nil where there is none.
func field(t *testing.T, command bson.Raw, name string) any {
	t.Helper()
	var doc bson.D
	require.NoError(t, bson.Unmarshal(command, &doc))
	for _, e := range doc {
		if e.Key == name {
			return e.Value
		}
	}
	return nil
}

// Connected to one member, the driver reads from it whatever it is.
func TestADirectConnectionToAMemberOfSeveralIsRefused(t *testing.T) {
	for _, query := range []string{"directConnection=true", "connect=direct"} {
		for _, size := range []int{1, 2} {
			for _, member := range replicaSet(t, size) {
				s, err := store.Open(t.Context(), store.Options{URI: secret.New("mongodb://" + member.addr + "/?" + query), Database: "d", Timeout: time.Minute})
				if size > 1 {
					require.ErrorContains(t, err, "directConnection")
					continue
				}
				require.NoError(t, err)
				require.NoError(t, s.Close(t.Context()))
			}
		}
	}
}
