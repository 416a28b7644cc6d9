{{- define "latchkey.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The name is latchkey always: alerts and dashboard know the job by it. */}}
{{- define "latchkey.selector" -}}
app.kubernetes.io/name: latchkey
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "latchkey.labels" -}}
{{ include "latchkey.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "latchkey.metadata" -}}
name: {{ include "latchkey.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "latchkey.labels" . | nindent 2 }}
{{- end }}

{{- /* A manifest of deploy/kubernetes, under the name and with the labels of the release. */}}
{{- define "latchkey.manifest" -}}
{{- $o := .root.Files.Get (printf "files/%s" .file) | fromYaml }}
{{- if not (hasKey $o "kind") }}{{ fail (printf "files/%s is not in the chart: where links can not be made, put a copy there" .file) }}{{ end }}
{{- $_ := set $o "metadata" (mergeOverwrite $o.metadata (include "latchkey.metadata" .root | fromYaml)) }}
{{- $o | toYaml }}
{{- end }}

{{- define "latchkey.serviceAccount" -}}
{{- default (ternary (include "latchkey.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{- /* The worker's configuration. */}}
{{- define "latchkey.config" -}}
{{- $given := deepCopy .Values.config }}
{{- $_ := required "config.kms.key_id is required" (dig "kms" "key_id" "" $given) }}
{{- $_ := required "config.kms.region is required" (dig "kms" "region" "" $given) }}
{{- $_ := required "config.mesh.client_id is required" (dig "mesh" "client_id" "" $given) }}
{{- $config := .Files.Get "files/base/latchkey.yaml" | fromYaml }}
{{- if eq .Values.natsAuthentication "creds" }}
{{- $_ := set $config.nats "creds_file" "/etc/latchkey/nats/worker.creds" }}
{{- end }}
{{- mergeOverwrite $config $given | toYaml }}
{{- end }}
