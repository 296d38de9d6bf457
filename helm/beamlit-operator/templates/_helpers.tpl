{{/*
Names are fixed and not made from the release's: the definitions and the webhook belong to the whole
cluster, so there is one installation in it. Helm refuses a second one.
*/}}

{{/* What others select by: {root, component}. */}}
{{- define "beamlit.selector" -}}
app.kubernetes.io/name: beamlit-operator
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* The labels of everything: {root, component}; component may be missing. */}}
{{- define "beamlit.labels" -}}
{{- $own := include "beamlit.ownLabels" . | fromYaml -}}
{{- merge (dict) $own (.root.Values.commonLabels | default dict) | toYaml -}}
{{- end }}

{{- define "beamlit.ownLabels" -}}
app.kubernetes.io/name: beamlit-operator
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: beamlit
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Those, and others that an object needs to be found by: {names, labels}. Its own count more. */}}
{{- define "beamlit.labelsAnd" -}}
{{- merge (dict) (include "beamlit.labels" .names | fromYaml) (.labels | default dict) | toYaml -}}
{{- end }}

{{/* An image's full name: {image, tag}; a digest counts more than a tag. */}}
{{- define "beamlit.imageName" -}}
{{- $name := printf "%s/%s" .image.registry .image.repository -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.image.tag | default .tag) -}}
{{- end -}}
{{- end }}

{{- define "beamlit.image" -}}
{{- include "beamlit.imageName" (dict "image" .Values.image "tag" .Chart.AppVersion) -}}
{{- end }}

{{- define "beamlit.envoyImage" -}}
{{- include "beamlit.imageName" (dict "image" .Values.gateway.envoy.image "tag" "") -}}
{{- end }}

{{/*
The way out, as variables of a container. The cluster's own addresses are reached without a proxy;
Python knows no networks there, so the API server's address is named.
*/}}
{{- define "beamlit.noProxy" -}}
{{- /* Through a proxy, a node's metadata would be that of the proxy's node. */}}
{{- $metadata := ternary (list "169.254.169.254") list .Values.origins.allowNodeCredentials }}
{{- concat (list "localhost" "127.0.0.1" "::1" ".svc" (printf ".%s" .Values.clusterDomain)) $metadata .Values.proxy.noProxy | join "," -}}
{{- end }}

{{- define "beamlit.wayOut" -}}
{{- with .Values.proxy.https }}
- {name: HTTPS_PROXY, value: {{ . | quote }}}
{{- end }}
{{- with .Values.proxy.http }}
- {name: HTTP_PROXY, value: {{ . | quote }}}
{{- end }}
{{- if or .Values.proxy.https .Values.proxy.http }}
- {name: NO_PROXY, value: {{ printf "$(KUBERNETES_SERVICE_HOST),%s" (include "beamlit.noProxy" .) | quote }}}
{{- end }}
{{- if .Values.certificateAuthorities.configMap }}
- {name: BEAMLIT_CA_FILE, value: {{ printf "/etc/beamlit/authorities/%s" .Values.certificateAuthorities.key | quote }}}
{{- end }}
{{- end }}

{{- define "beamlit.authoritiesMount" -}}
{{- if .Values.certificateAuthorities.configMap -}}
- {name: authorities, mountPath: /etc/beamlit/authorities, readOnly: true}
{{- end }}
{{- end }}

{{- define "beamlit.authoritiesVolume" -}}
{{- with .Values.certificateAuthorities.configMap -}}
- name: authorities
  configMap: {name: {{ . | quote }}}
{{- end }}
{{- end }}

{{/* host:port to listen on. Both programs read the port after the last colon. */}}
{{- define "beamlit.listen" -}}
{{- printf "%s:%d" .root.Values.bindAddress (int .port) -}}
{{- end }}

{{/* A number or a text as it was written: large numbers would come as 1e+09. */}}
{{- define "beamlit.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ int64 . }}{{ end -}}
{{- end }}

{{/* Bytes of `512Mi`, `2Gi` or a number. The schema lets nothing else through. */}}
{{- define "beamlit.bytes" -}}
{{- $text := include "beamlit.text" . -}}
{{- $number := regexFind "^[0-9]+" $text | int64 -}}
{{- $unit := regexFind "[KMG]i$" $text -}}
{{- if eq $unit "Gi" -}}{{ mul $number 1073741824 }}
{{- else if eq $unit "Mi" -}}{{ mul $number 1048576 }}
{{- else if eq $unit "Ki" -}}{{ mul $number 1024 }}
{{- else -}}{{ $number }}{{- end -}}
{{- end }}

{{/* Seconds from SIGTERM to SIGKILL: the drain, the last answers (2 s), and some to spare. */}}
{{- define "beamlit.gracePeriod" -}}
{{- add (ceil .Values.gateway.drainTime) 15 -}}
{{- end }}

{{/* The part of a pod's security that Pod Security `restricted` looks at, and more. */}}
{{- define "beamlit.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "beamlit.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where pods run: {root, component, values}. */}}
{{- define "beamlit.scheduling" -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- $selector := include "beamlit.selector" . }}
topologySpreadConstraints:
{{- if .values.topologySpreadConstraints }}
{{- range .values.topologySpreadConstraints }}
  - {{- merge (dict) . (dict "labelSelector" (dict "matchLabels" (fromYaml $selector))) | toYaml | nindent 4 }}
{{- end }}
{{- else }}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- $selector | nindent 8 }}
{{- end }}
{{- end }}
{{- end }}

{{/*
The objects of a file of manifests: {root, path}, as a YAML list. They are written for the namespace
beamlit-system; here they belong to the release's, and have the chart's labels.
*/}}
{{- define "beamlit.objects" -}}
{{- $root := .root }}
{{- $text := .root.Files.Get .path | replace "beamlit-system" .root.Release.Namespace }}
{{- $labels := include "beamlit.labels" (dict "root" .root) | fromYaml }}
{{- $objects := list }}
{{- range regexSplit "(?m)^---[ ]*$" $text -1 }}
{{- $object := fromYaml . }}
{{- if $object }}
{{- $_ := set $object.metadata "labels" (merge (dict) $labels ($object.metadata.labels | default dict)) }}
{{- $objects = append $objects $object }}
{{- end }}
{{- end }}
{{- toYaml (dict "items" $objects) }}
{{- end }}
