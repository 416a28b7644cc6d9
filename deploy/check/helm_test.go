package check

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

const chartDir = "../helm"

// object is a manifest without a type.
type object = map[string]any

func parsed[T any](t *testing.T, body string) (out T) {
	t.Helper()
	require.NoError(t, yaml.UnmarshalStrict([]byte(body), &out), body)
	return out
}

func values(t *testing.T, path string) object {
	t.Helper()
	body, err := os.ReadFile(path)
	require.NoError(t, err)
	return parsed[object](t, string(body))
}

// installation are the least values that the chart takes.
func installation() object {
	return object{
		"image":  object{"repository": "latchkey", "tag": "1"},
		"config": object{"kms": object{"key_id": "alias/latchkey", "region": "eu-central-1"}, "mesh": object{"client_id": "00000000-0000-4000-8000-000000000000"}},
	}
}

// rendered returns what Helm makes of the chart as the release "latchkey" in the namespace
// "latchkey": objects by kind and name, and the notes.
func rendered(t *testing.T, given object) (objects map[string]string, notes string, err error) {
	t.Helper()
	slog.SetDefault(slog.New(slog.DiscardHandler)) // Helm reports every link
	chart, err := loader.LoadDir(chartDir)
	require.NoError(t, err)
	options := common.ReleaseOptions{Name: "latchkey", Namespace: "latchkey", Revision: 1, IsInstall: true}
	all, err := util.ToRenderValues(chart, given, options, common.DefaultCapabilities)
	if err != nil {
		return nil, "", err
	}
	files, err := engine.Engine{Strict: true}.RenderWithContext(t.Context(), chart, all)
	if err != nil {
		return nil, "", err
	}
	objects = map[string]string{}
	for path, text := range files {
		if strings.HasSuffix(path, "NOTES.txt") {
			notes = text
			continue
		}
		for _, body := range strings.Split("\n"+text, "\n---\n") {
			if o := parsed[object](t, body); len(o) > 0 {
				key := o["kind"].(string) + "/" + o["metadata"].(object)["name"].(string)
				require.NotContains(t, objects, key)
				require.Equal(t, "latchkey", o["metadata"].(object)["namespace"], key)
				objects[key] = body
			}
		}
	}
	return objects, notes, nil
}

func render(t *testing.T, given object) (objects map[string]string, notes string) {
	t.Helper()
	objects, notes, err := rendered(t, given)
	require.NoError(t, err)
	return objects, notes
}

func keys(objects map[string]string) (all []string) {
	for key := range objects {
		all = append(all, key)
	}
	slices.Sort(all)
	return all
}

func TestTheChartPassesHelmsLinter(t *testing.T) {
	for _, given := range []object{installation(), values(t, chartDir+"/example-values.yaml"), values(t, chartDir+"/ci/all-values.yaml")} {
		for _, m := range lint.RunAll(chartDir, given, "latchkey").Messages {
			require.Less(t, m.Severity, support.WarningSev, m.Error())
		}
	}
}

// TestChartAndKustomizeAgree: the same installation by both is the same, but for the
// labels that Helm's users expect, and for what replaces workers when their
// configuration changes: Kustomize's name with a hash, the chart's annotation.
func TestChartAndKustomizeAgree(t *testing.T) {
	base := installation()
	base["serviceAccount"] = object{"roleArn": "arn:aws:iam::111122223333:role/latchkey-worker"}
	for folder, given := range map[string]object{
		"../kubernetes/base":             base,
		"../kubernetes/overlays/example": values(t, chartDir+"/example-values.yaml"),
	} {
		want, got := map[string]object{}, map[string]object{}
		for kind, body := range build(t, folder) {
			want[kind] = canonical(parsed[object](t, string(body))).(object)
		}
		delete(want, "Namespace") // helm install --create-namespace
		objects, _ := render(t, given)
		for key, body := range objects {
			kind, _, _ := strings.Cut(key, "/")
			got[kind] = canonical(parsed[object](t, body)).(object)
		}
		if folder == "../kubernetes/base" {
			spec := got["Deployment"]["spec"].(object)
			require.EqualValues(t, 2, spec["replicas"])
			delete(spec, "replicas") // overlays set them
			container := spec["template"].(object)["spec"].(object)["containers"].([]any)[0].(object)
			require.Equal(t, "latchkey:1", container["image"])
			container["image"] = "latchkey" // overlays set the tag
		}
		require.Len(t, got, len(want), folder)
		for kind := range want {
			require.Equal(t, want[kind], got[kind], "%s of %s", kind, folder)
		}
	}
}

// canonical takes out of a manifest what may differ.
func canonical(v any) any {
	switch v := v.(type) {
	case object:
		for _, name := range []string{
			"app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart", "checksum/config", "namespace",
		} {
			delete(v, name)
		}
		if configuration, ok := v["latchkey.yaml"].(string); ok {
			var settings any
			if err := yaml.Unmarshal([]byte(configuration), &settings); err == nil {
				v["latchkey.yaml"] = settings
			}
		}
		if name, ok := v["name"].(string); ok && strings.HasPrefix(name, "latchkey-") {
			if len(name) == len("latchkey-0123456789") {
				v["name"] = "latchkey" // Kustomize's hash
			}
		}
		for key := range v {
			v[key] = canonical(v[key])
		}
	case []any:
		for i := range v {
			v[i] = canonical(v[i])
		}
	}
	return v
}

// TestTheChartWithEverything renders all that there is, by the types of Kubernetes where
// they are its own.
func TestTheChartWithEverything(t *testing.T) {
	objects, notes := render(t, values(t, chartDir+"/ci/all-values.yaml"))
	require.Contains(t, notes, "exec deployment/keeper -- latchkey doctor")
	require.NotContains(t, notes, "operator's page", "there is none")
	require.Equal(t, []string{
		"ConfigMap/keeper", "ConfigMap/keeper-dashboard", "Deployment/keeper", "ExternalSecret/keeper-nats", "ExternalSecret/keeper-worker", "NetworkPolicy/keeper",
		"PodDisruptionBudget/keeper", "PodMonitor/keeper", "PrometheusRule/keeper", "ScaledObject/keeper", "Service/keeper", "ServiceAccount/workers", "ServiceMonitor/keeper",
	}, keys(objects))

	deployment := parsed[appsv1.Deployment](t, objects["Deployment/keeper"])
	require.Nil(t, deployment.Spec.Replicas, "the autoscaler's")
	pod := deployment.Spec.Template
	selector := map[string]string{"app.kubernetes.io/name": "latchkey", "app.kubernetes.io/instance": "latchkey"}
	require.Equal(t, selector, deployment.Spec.Selector.MatchLabels)
	for name, value := range selector {
		require.Equal(t, value, pod.Labels[name])
	}
	require.Equal(t, "links", pod.Labels["team"])
	require.Equal(t, "b", pod.Annotations["example.net/a"])
	require.Equal(t, "workers", pod.Spec.ServiceAccountName)
	require.EqualValues(t, 90, *pod.Spec.TerminationGracePeriodSeconds)
	require.Equal(t, "high", pod.Spec.PriorityClassName)
	require.Equal(t, map[string]string{"pool": "workers"}, pod.Spec.NodeSelector)
	require.Len(t, pod.Spec.Tolerations, 1)
	require.NotNil(t, pod.Spec.Affinity)
	require.EqualValues(t, 2, pod.Spec.TopologySpreadConstraints[0].MaxSkew)
	require.Equal(t, "registry", pod.Spec.ImagePullSecrets[0].Name)
	require.True(t, *pod.Spec.SecurityContext.RunAsNonRoot)
	worker := pod.Spec.Containers[0]
	require.Regexp(t, `^registry\.example\.net/latchkey@sha256:`, worker.Image)
	require.Equal(t, corev1.PullAlways, worker.ImagePullPolicy)
	require.Equal(t, "1Gi", worker.Resources.Limits.Memory().String())
	require.EqualValues(t, 9500, worker.Ports[0].ContainerPort)
	for _, probe := range []*corev1.Probe{worker.StartupProbe, worker.LivenessProbe, worker.ReadinessProbe} {
		require.Equal(t, corev1.URISchemeHTTPS, probe.HTTPGet.Scheme)
	}
	env := map[string]string{}
	for _, e := range worker.Env {
		env[e.Name] = e.Value
	}
	require.Equal(t, map[string]string{
		"LATCHKEY_MESH_CLIENT_SECRET_FILE": "/etc/latchkey/secrets/mesh-client-secret", "LATCHKEY_MONGODB_URI_FILE": "/etc/latchkey/secrets/mongodb-uri",
		"GOMEMLIMIT": "900MiB", "AWS_CA_BUNDLE": "/etc/ca/ca.pem",
	}, env)
	mounted := map[string]string{}
	for _, v := range pod.Spec.Volumes {
		switch {
		case v.Secret != nil:
			mounted[v.Name] = v.Secret.SecretName
		case v.ConfigMap != nil:
			mounted[v.Name] = v.ConfigMap.Name
		}
	}
	require.Equal(t, map[string]string{"config": "keeper", "secrets": "keeper-worker", "nats": "keeper-nats", "ca": "ca"}, mounted)
	require.Equal(t, "/etc/ca", worker.VolumeMounts[len(worker.VolumeMounts)-1].MountPath)

	configuration := parsed[corev1.ConfigMap](t, objects["ConfigMap/keeper"]).Data["latchkey.yaml"]
	require.Contains(t, configuration, "max_sets: 4294967296\n", "no exponent")
	settings := parsed[map[string]object](t, configuration)
	require.Equal(t, "/etc/latchkey/nats/worker.creds", settings["nats"]["creds_file"])
	require.Equal(t, "_INBOX_latchkey", settings["nats"]["inbox_prefix"], "from the base")
	require.Equal(t, "tls://nats.example.net:4222", settings["nats"]["url"])

	account := parsed[corev1.ServiceAccount](t, objects["ServiceAccount/workers"])
	require.Equal(t, map[string]string{"eks.amazonaws.com/role-arn": "arn:aws:iam::444455556666:role/latchkey-worker", "team": "links"}, account.Annotations)
	budget := parsed[policyv1.PodDisruptionBudget](t, objects["PodDisruptionBudget/keeper"])
	require.Equal(t, "25%", budget.Spec.MaxUnavailable.String())
	require.Equal(t, selector, budget.Spec.Selector.MatchLabels)

	policy := parsed[networkingv1.NetworkPolicy](t, objects["NetworkPolicy/keeper"]).Spec
	require.Equal(t, selector, policy.PodSelector.MatchLabels)
	require.Equal(t, "observability", policy.Ingress[0].From[0].NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"])
	to := map[int]string{}
	for _, rule := range policy.Egress {
		to[rule.Ports[0].Port.IntValue()] = rule.To[0].IPBlock.CIDR
	}
	require.Equal(t, map[int]string{53: "10.0.0.10/32", 4222: "10.1.0.0/24", 27017: "10.2.0.0/24", 443: "0.0.0.0/0", 4318: "10.3.0.1/32"}, to)

	service := parsed[corev1.Service](t, objects["Service/keeper"]).Spec
	require.Equal(t, corev1.ClusterIPNone, service.ClusterIP, "no address that others might use")
	require.True(t, service.PublishNotReadyAddresses, "their metrics matter most")
	require.Equal(t, selector, service.Selector)
	for _, kind := range []string{"PodMonitor", "ServiceMonitor"} {
		monitor := parsed[object](t, objects[kind+"/keeper"])
		require.Equal(t, "prometheus", monitor["metadata"].(object)["labels"].(object)["release"], kind)
		spec := monitor["spec"].(object)
		require.Equal(t, "app.kubernetes.io/name", spec["jobLabel"], kind)
		field := map[string]string{"PodMonitor": "podMetricsEndpoints", "ServiceMonitor": "endpoints"}[kind]
		endpoint := spec[field].([]any)[0].(object)
		require.Equal(t, "https", endpoint["scheme"], kind)
		require.Equal(t, "admin", endpoint["port"], kind)
		require.Len(t, spec, 3, kind)
	}

	rule, alerts := parsed[object](t, objects["PrometheusRule/keeper"]), values(t, "../prometheus/alerts.yaml")
	require.Equal(t, alerts, rule["spec"], "as promtool has tried them")
	require.Equal(t, "prometheus", rule["metadata"].(object)["labels"].(object)["release"])
	dashboard := parsed[corev1.ConfigMap](t, objects["ConfigMap/keeper-dashboard"])
	body, err := os.ReadFile("../grafana/dashboard.json")
	require.NoError(t, err)
	require.JSONEq(t, string(body), dashboard.Data["latchkey.json"])
	require.Equal(t, "1", dashboard.Labels["grafana_dashboard"])

	for name, key := range map[string]string{"keeper-worker": "apps/keeper", "keeper-nats": "apps/keeper-nats"} {
		require.Equal(t, object{
			"refreshInterval": "1h", "secretStoreRef": object{"kind": "ClusterSecretStore", "name": "vault"},
			"target": object{"name": name, "creationPolicy": "Owner"}, "dataFrom": []any{object{"extract": object{"key": key}}},
		}, parsed[object](t, objects["ExternalSecret/"+name])["spec"], name)
	}
}

// TestTheAutoscalerAsksForEveryPartition by the names that streams and consumers have.
func TestTheAutoscalerAsksForEveryPartition(t *testing.T) {
	objects, _ := render(t, values(t, chartDir+"/ci/all-values.yaml"))
	spec := parsed[object](t, objects["ScaledObject/keeper"])["spec"].(object)
	require.Equal(t, "keeper", spec["scaleTargetRef"].(object)["name"])
	require.EqualValues(t, 3, spec["minReplicaCount"])
	require.EqualValues(t, 9, spec["maxReplicaCount"])
	require.EqualValues(t, 3, spec["fallback"].(object)["replicas"])
	var asked []string
	for _, trigger := range spec["triggers"].([]any) {
		m := trigger.(object)["metadata"].(object)
		require.Equal(t, "nats.example.net:8222", m["natsServerMonitoringEndpoint"])
		require.Equal(t, "LATCHKEY", m["account"])
		asked = append(asked, strings.Join([]string{m["stream"].(string), m["consumer"].(string), m["lagThreshold"].(string)}, " "))
	}
	require.Equal(t, []string{
		"EU_LATCHKEY_REFRESH latchkey-eu-refresh-due 37", "EU_LATCHKEY_REFRESH_1 latchkey-eu-refresh-due-1 37",
		"EU_LATCHKEY_REFRESH_2 latchkey-eu-refresh-due-2 37", "EU_LATCHKEY_REFRESH_3 latchkey-eu-refresh-due-3 37",
		"EU_LATCHKEY_INTEGRATION latchkey-eu-integration-connected 200",
	}, asked)
}

func TestTheLeastThatTheChartMakes(t *testing.T) {
	given := installation()
	for _, part := range []string{"podDisruptionBudget", "networkPolicy"} {
		given[part] = object{"enabled": false}
	}
	given["serviceAccount"] = object{"create": false}
	objects, notes := render(t, given)
	require.Equal(t, []string{"ConfigMap/latchkey", "Deployment/latchkey"}, keys(objects))
	require.Equal(t, "default", parsed[appsv1.Deployment](t, objects["Deployment/latchkey"]).Spec.Template.Spec.ServiceAccountName)
	require.Contains(t, notes, `kubectl -n latchkey get secret latchkey -o go-template='{{index .data "admin-token" | base64decode}}'`)

	require.Contains(t, notes, "9464:9464   # http://127.0.0.1:9464\n")

	given["image"] = object{"repository": "latchkey"}
	given["config"].(object)["admin"] = object{"listen": "0.0.0.0:9500", "cert_file": "/a", "key_file": "/b"}
	_, notes = render(t, given)
	require.Contains(t, notes, "9464:9500   # https://127.0.0.1:9464\n")
	objects, _ = render(t, given)
	about := values(t, chartDir+"/Chart.yaml")
	require.Equal(t, "latchkey:"+about["appVersion"].(string), parsed[appsv1.Deployment](t, objects["Deployment/latchkey"]).Spec.Template.Spec.Containers[0].Image)
}

// TestTheChartRefuses what would not work, with a word on what is wrong.
func TestTheChartRefuses(t *testing.T) {
	for text, change := range map[string]object{
		"image.repository is required":                         {"image": object{"tag": "1"}},
		"config.kms.key_id is required":                        {"config": object{"kms": object{"region": "x"}, "mesh": object{"client_id": "x"}}},
		"config.kms.region is required":                        {"config": object{"kms": object{"key_id": "x"}, "mesh": object{"client_id": "x"}}},
		"config.mesh.client_id is required":                    {"config": object{"kms": object{"key_id": "x", "region": "x"}}},
		"set terminationGracePeriodSeconds to 45 at least":     {"terminationGracePeriodSeconds": 44},
		"set terminationGracePeriodSeconds to 75 at least":     {"config": object{"kms": object{"key_id": "x", "region": "x"}, "mesh": object{"client_id": "x"}, "worker": object{"grace": "60s"}}},
		"externalSecrets.store.name is required":               {"externalSecrets": object{"enabled": true}},
		"additional properties 'replica' not allowed":          {"replica": 3},
		"at '/natsAuthentication': value must be one of":       {"natsAuthentication": "password"},
		"at '/serviceAccount/roleArn'":                         {"serviceAccount": object{"roleArn": "latchkey-worker"}},
		"at '/networkPolicy': additional properties 'egress' ": {"networkPolicy": object{"egress": []any{}}},
	} {
		given := installation()
		for key, value := range change {
			given[key] = value
		}
		_, _, err := rendered(t, given)
		require.ErrorContains(t, err, text)
	}
}

// TestACheckoutWithoutLinksHasNoChart, and says so.
func TestACheckoutWithoutLinksHasNoChart(t *testing.T) {
	chart, err := loader.LoadDir(chartDir)
	require.NoError(t, err)
	chart.Files = nil
	all, err := util.ToRenderValues(chart, installation(), common.ReleaseOptions{Name: "latchkey", Namespace: "latchkey"}, common.DefaultCapabilities)
	require.NoError(t, err)
	_, err = engine.Engine{Strict: true}.RenderWithContext(t.Context(), chart, all)
	require.ErrorContains(t, err, "is not in the chart: where links can not be made, put a copy there")
}

// TestEveryValueIsDescribed: the schema and the values have the same keys.
func TestEveryValueIsDescribed(t *testing.T) {
	described := values(t, chartDir+"/values.schema.json")["properties"].(object)
	delete(described, "global") // Helm's own
	given := values(t, chartDir+"/values.yaml")
	for key := range described {
		require.Contains(t, given, key)
	}
	for key := range given {
		require.Contains(t, described, key)
	}
	// And what the chart is made of lies where Kustomize has it.
	for _, name := range []string{"base", "components", "alerts.yaml", "dashboard.json"} {
		target, err := os.Readlink(filepath.Join(chartDir, "files", name))
		require.NoError(t, err, "a copy would grow apart")
		require.Contains(t, target, "../../")
	}
}
