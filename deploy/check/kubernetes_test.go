package check

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// build returns what kustomize makes of a folder: the objects by their kinds.
func build(t *testing.T, folder string) map[string][]byte {
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	require.NoError(t, err)
	objects := map[string][]byte{}
	for _, r := range resources.Resources() {
		body, err := r.AsYAML()
		require.NoError(t, err)
		require.NotContains(t, objects, r.GetKind())
		objects[r.GetKind()] = body
	}
	return objects
}

// native are the kinds whose fields Kubernetes' own types check. Those of
// operators are checked where they are installed.
func native() map[string]any {
	return map[string]any{
		"Namespace": &corev1.Namespace{}, "ServiceAccount": &corev1.ServiceAccount{}, "ConfigMap": &corev1.ConfigMap{},
		"Deployment": &appsv1.Deployment{}, "PodDisruptionBudget": &policyv1.PodDisruptionBudget{}, "NetworkPolicy": &networkingv1.NetworkPolicy{},
	}
}

func TestKubernetes(t *testing.T) {
	foreign := map[string]bool{"PodMonitor": true, "ScaledObject": true}
	for _, folder := range []string{"../kubernetes/base", "../kubernetes/overlays/example"} {
		objects, types := build(t, folder), native()
		for kind, body := range objects {
			if !foreign[kind] {
				require.Contains(t, types, kind)
				require.NoError(t, yaml.UnmarshalStrict(body, types[kind]), kind)
			}
		}
		deployment := types["Deployment"].(*appsv1.Deployment)
		pod := deployment.Spec.Template.Spec
		require.Len(t, pod.Containers, 1)
		worker := pod.Containers[0]

		// What the "restricted" standard of pod security demands, and a root file
		// system that nobody writes to.
		require.True(t, *pod.SecurityContext.RunAsNonRoot)
		require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, pod.SecurityContext.SeccompProfile.Type)
		require.False(t, *worker.SecurityContext.AllowPrivilegeEscalation)
		require.True(t, *worker.SecurityContext.ReadOnlyRootFilesystem)
		require.Equal(t, []corev1.Capability{"ALL"}, worker.SecurityContext.Capabilities.Drop)
		require.False(t, *pod.AutomountServiceAccountToken)

		// A worker has its time to finish, and only /healthz restarts it.
		require.Greater(t, time.Duration(*pod.TerminationGracePeriodSeconds)*time.Second, 45*time.Second)
		require.Equal(t, "/healthz", worker.LivenessProbe.HTTPGet.Path)
		require.Equal(t, "/readyz", worker.ReadinessProbe.HTTPGet.Path)

		// The pieces belong together.
		labels := deployment.Spec.Template.Labels
		for key, value := range deployment.Spec.Selector.MatchLabels {
			require.Equal(t, value, labels[key])
		}
		require.Equal(t, deployment.Spec.Selector.MatchLabels, types["PodDisruptionBudget"].(*policyv1.PodDisruptionBudget).Spec.Selector.MatchLabels)
		require.Equal(t, deployment.Spec.Selector.MatchLabels, types["NetworkPolicy"].(*networkingv1.NetworkPolicy).Spec.PodSelector.MatchLabels)
		policy := types["NetworkPolicy"].(*networkingv1.NetworkPolicy).Spec
		require.Equal(t, map[string]string{"app.kubernetes.io/name": "prometheus"}, policy.Ingress[0].From[0].PodSelector.MatchLabels, "else Prometheus is kept out")
		require.Equal(t, map[string]string{"k8s-app": "kube-dns"}, policy.Egress[0].To[0].PodSelector.MatchLabels, "else no name is found")
		require.Equal(t, "169.254.20.10/32", policy.Egress[0].To[1].IPBlock.CIDR, "NodeLocal DNSCache")
		require.Equal(t, types["ServiceAccount"].(*corev1.ServiceAccount).Name, pod.ServiceAccountName)
		mounted := map[string]bool{}
		for _, v := range pod.Volumes {
			mounted[v.Name] = true
			if v.ConfigMap != nil {
				require.Equal(t, types["ConfigMap"].(*corev1.ConfigMap).Name, v.ConfigMap.Name)
			}
		}
		for _, m := range worker.VolumeMounts {
			require.True(t, mounted[m.Name], m.Name)
			require.True(t, m.ReadOnly)
		}
		for _, e := range worker.Env {
			if strings.HasPrefix(e.Value, "/") {
				require.Condition(t, func() bool {
					for _, m := range worker.VolumeMounts {
						if strings.HasPrefix(e.Value, m.MountPath+"/") {
							return true
						}
					}
					return false
				}, "%s is not mounted", e.Name)
			}
		}
		require.NotContains(t, worker.Image, "latest")
	}
	require.Contains(t, build(t, "../kubernetes/overlays/example"), "ScaledObject")
}
