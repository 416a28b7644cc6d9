package worker

import (
	"context"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/latchkey/latchkey/config"
)

func env(variables map[string]string) func(string) string {
	return func(name string) string { return variables[name] }
}

func TestACollectorWithAnAuthorityOfItsOwn(t *testing.T) {
	arrived := make(chan string, 10)
	collector := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { arrived <- r.URL.Path }))
	t.Cleanup(collector.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: collector.Certificate().Raw}), 0o600))
	send := func() int {
		core, logs := observer.New(zap.WarnLevel)
		cfg := config.Default()
		cfg.Tracing.Endpoint = collector.URL
		traces, err := startTraces(cfg, zap.New(core))
		require.NoError(t, err)
		_, span := traces.tracer.Start(context.Background(), "one", trace.SpanKindInternal)
		span.End()
		traces.stop()
		return logs.Len()
	}
	require.NotZero(t, send(), "nobody vouches for the collector")
	require.Empty(t, arrived)
	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", ca)
	require.Zero(t, send())
	require.Equal(t, "/v1/traces", <-arrived)
}

func TestCertificatesForACollectorThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk.pem")
	require.NoError(t, os.WriteFile(junk, []byte("junk"), 0o600))
	for _, variables := range []map[string]string{
		{"OTEL_EXPORTER_OTLP_CERTIFICATE": filepath.Join(dir, "missing.pem")},
		{"OTEL_EXPORTER_OTLP_CERTIFICATE": junk},
		{"OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": junk},
		{"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": junk},
		{"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": junk, "OTEL_EXPORTER_OTLP_CLIENT_KEY": junk},
	} {
		_, err := collectorTLS(env(variables))
		require.Error(t, err, "%v", variables)
		require.Contains(t, err.Error(), "OTEL_EXPORTER_OTLP_")
		if variables["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE"] != "" {
			require.Contains(t, err.Error(), "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE")
		}
	}
	c, err := collectorTLS(env(nil))
	require.NoError(t, err)
	require.Nil(t, c.RootCAs, "those of the system")

	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", junk)
	cfg := config.Default()
	cfg.Tracing.Endpoint = "https://collector.example"
	_, err = startTraces(cfg, zap.NewNop())
	require.ErrorContains(t, err, "preparing traces")
}

// TestKeysOfAnotherCollectorStayHere: they are neither sent to ours nor written anywhere.
func TestKeysOfAnotherCollectorStayHere(t *testing.T) {
	arrived := make(chan http.Header, 10)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { arrived <- r.Header }))
	t.Cleanup(collector.Close)
	var written strings.Builder
	otel.SetLogger(funcr.New(func(_, line string) { written.WriteString(line) }, funcr.Options{}))
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=s3cret,s3cret,y-key=s3cret%zz")
	cfg := config.Default()
	cfg.Tracing.Endpoint = collector.URL
	traces, err := startTraces(cfg, zap.NewNop())
	require.NoError(t, err)
	_, span := traces.tracer.Start(context.Background(), "one", trace.SpanKindInternal)
	span.End()
	traces.stop()
	require.NotContains(t, fmt.Sprint(<-arrived), "s3cret")
	require.Empty(t, written.String())
}

func TestSpansSayWhoseTheyAre(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	cfg := config.Default()
	cfg.Worker.ID, cfg.Tracing.ServiceName = "w", "keeper"
	attributes := func() map[string]string {
		out := map[string]string{}
		for _, a := range describe(cfg, zap.New(core)).Attributes() {
			out[string(a.Key)] = a.Value.AsString()
		}
		return out
	}
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=other,service.instance.id=other")
	got := attributes()
	require.Equal(t, "keeper", got["service.name"])
	require.Equal(t, "w", got["service.instance.id"])
	require.Equal(t, "test", got["deployment.environment.name"])
	require.Equal(t, "opentelemetry", got["telemetry.sdk.name"])
	require.NotEmpty(t, got["service.version"])
	require.Zero(t, logs.Len())

	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "odd")
	require.Equal(t, "keeper", attributes()["service.name"])
	require.Equal(t, 1, logs.Len())
}
