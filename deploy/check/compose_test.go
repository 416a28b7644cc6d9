package check

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"
)

func project(t *testing.T, environment ...string) (*types.Project, error) {
	options, err := cli.NewProjectOptions([]string{"../compose.yaml"},
		cli.WithEnv(environment), cli.WithoutEnvironmentResolution, cli.WithConsistency(true))
	require.NoError(t, err)
	return options.LoadProject(t.Context())
}

// TestCompose reads the compose file as docker compose does, with the values of
// .env.example.
func TestCompose(t *testing.T) {
	options, err := cli.NewProjectOptions(nil, cli.WithEnvFiles("../.env.example"), cli.WithDotEnv)
	require.NoError(t, err)
	var environment []string
	for name, value := range options.Environment {
		environment = append(environment, name+"="+value)
	}
	p, err := project(t, environment...)
	require.NoError(t, err)
	for _, s := range p.Services {
		tag := s.Image[strings.LastIndex(s.Image, ":")+1:]
		require.Regexp(t, `^(v?[0-9]|dev$)`, tag, s.Image)
		full(t, s.Image)
		require.False(t, s.Privileged, s.Name)
		for _, port := range s.Ports {
			require.Equal(t, "127.0.0.1", port.HostIP, "%s publishes %s", s.Name, port.Published)
		}
	}

	worker := p.Services["worker"]
	require.Equal(t, "9464-9473", worker.Ports[0].Published, "a port for each of up to ten workers")
	require.LessOrEqual(t, *worker.Deploy.Replicas, 10)
	require.True(t, worker.ReadOnly)
	require.Equal(t, []string{"ALL"}, worker.CapDrop)
	require.Contains(t, worker.SecurityOpt, "no-new-privileges:true")
	require.Equal(t, "65532:65532", worker.User)
	require.GreaterOrEqual(t, time.Duration(*worker.StopGracePeriod), 45*time.Second, "worker.grace and some")
	require.Zero(t, worker.Ulimits["core"].Single)

	// What it reads from files it is given.
	given := map[string]bool{}
	for _, s := range worker.Secrets {
		given["/run/secrets/"+s.Source] = true
	}
	for name, value := range worker.Environment {
		if value != nil && strings.HasPrefix(*value, "/run/secrets/") {
			require.True(t, given[*value], name)
			delete(given, *value)
		}
	}
	require.Empty(t, given, "given and not read")
}

// TestComposeShowsTraces: with what .env.example offers there is a collector with a page,
// and the workers send to it.
func TestComposeShowsTraces(t *testing.T) {
	example, err := os.ReadFile("../.env.example")
	require.NoError(t, err)
	var environment []string
	for _, line := range strings.Split(strings.ReplaceAll(string(example), "\n#", "\n"), "\n") {
		if name, _, set := strings.Cut(line, "="); set && !strings.Contains(name, " ") {
			environment = append(environment, line)
		}
	}
	p, err := project(t, environment...)
	require.NoError(t, err)
	require.NotContains(t, p.Services, "jaeger", "not unless somebody wants it")
	require.Contains(t, environment, "COMPOSE_PROFILES=traces")
	p, err = p.WithProfiles([]string{"traces"})
	require.NoError(t, err)
	jaeger := p.Services["jaeger"]
	full(t, jaeger.Image)
	require.Equal(t, "127.0.0.1", jaeger.Ports[0].HostIP)
	require.Equal(t, "http://jaeger:4318", *p.Services["worker"].Environment["LATCHKEY_TRACING_ENDPOINT"])
}

// TestComposeNeedsItsValues: without what only the user knows nothing starts.
func TestComposeNeedsItsValues(t *testing.T) {
	_, err := project(t)
	require.ErrorContains(t, err, "see .env.example")
}

// full expects an image's name with its registry: without one, only Docker knows
// which is meant.
func full(t *testing.T, image string) {
	registry, _, _ := strings.Cut(image, "/")
	require.Regexp(t, `\.|^localhost$`, registry, image)
}
