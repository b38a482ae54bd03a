{{- define "fedcervix.name" -}}
{{ printf "%s-%s" .Release.Name .Values.role | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "fedcervix.selector" -}}
app.kubernetes.io/name: fedcervix
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: {{ .Values.role }}
{{- end }}

{{- define "fedcervix.labels" -}}
{{ include "fedcervix.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "fedcervix.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Limits as in deploy/systemd and compose.yaml: under a flood the pod fails, not the node. */}}
{{- define "fedcervix.resources" -}}
{{- if .Values.resources -}}
{{ toYaml .Values.resources }}
{{- else if eq .Values.role "coordinator" -}}
requests:
  cpu: 500m
  memory: 512Mi
limits:
  memory: 2Gi
  ephemeral-storage: 1Gi
{{- else -}}
requests:
  cpu: "4"
  memory: 8Gi
limits:
  memory: 16Gi
  ephemeral-storage: 4Gi
{{- end }}
{{- end }}

{{- define "fedcervix.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
# Only an empty new volume is handed over. Else each start would open the private files of the home to a group.
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "fedcervix.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
{{- end }}

{{/* What a pod and its volume share in a StatefulSet and in a Job. */}}
{{- define "fedcervix.podSpec" -}}
automountServiceAccountToken: false
serviceAccountName: {{ include "fedcervix.name" . }}
enableServiceLinks: false
securityContext:
  {{- include "fedcervix.podSecurity" . | nindent 2 }}
terminationGracePeriodSeconds: {{ eq .Values.role "coordinator" | ternary 60 90 }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "fedcervix.resourcesWithGpu" -}}
{{- $resources := include "fedcervix.resources" . | fromYaml -}}
{{- if and (eq .Values.role "site") .Values.site.gpus -}}
{{- $limits := merge (dict "nvidia.com/gpu" (.Values.site.gpus | int)) (get $resources "limits" | default dict) -}}
{{- $resources = merge (dict "limits" $limits) $resources -}}
{{- end -}}
{{ toYaml $resources }}
{{- end }}

{{- define "fedcervix.container" -}}
name: {{ .Values.role }}
image: {{ include "fedcervix.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command:
  - /opt/fedcervix/bin/python
  - /etc/fedcervix/supervise.py
  - {{ .Values.maintenance | ternary "maintenance" (eq .Values.role "coordinator" | ternary "coordinator" (printf "site-%s" (.Values.site.kind | lower))) }}
securityContext:
  {{- include "fedcervix.containerSecurity" . | nindent 2 }}
resources:
  {{- include "fedcervix.resourcesWithGpu" . | nindent 2 }}
env:
  # In a folder of its own, which the program makes private: the volume's top folder belongs to a group.
  - name: {{ eq .Values.role "coordinator" | ternary "FEDCERVIX_COORDINATOR_HOME" "FEDCERVIX_SITE_HOME" }}
    value: /var/lib/fedcervix/home
{{- if and (eq .Values.role "site") .Values.site.proxy }}
  - name: https_proxy
    value: {{ .Values.site.proxy | quote }}
{{- end }}
{{- if eq .Values.role "coordinator" }}
ports:
  - name: federation
    containerPort: {{ .Values.coordinator.port }}
    protocol: TCP
{{- if not .Values.maintenance }}
# Only whether it listens: TLS ends in the program, and `coordinator status` says the rest. No liveness probe: a restart
# mends nothing that the program could not say in its log.
readinessProbe:
  tcpSocket:
    port: federation
  periodSeconds: 10
{{- end }}
{{- end }}
volumeMounts:
  - name: home
    mountPath: /var/lib/fedcervix
  - name: script
    mountPath: /etc/fedcervix
    readOnly: true
  - name: tmp
    mountPath: /tmp
{{- if eq .Values.role "site" }}
  - name: data
    mountPath: /data
    readOnly: true
  - name: shared-memory
    mountPath: /dev/shm
{{- end }}
{{- end }}

{{- define "fedcervix.volumes" -}}
- name: script
  configMap:
    name: {{ include "fedcervix.name" . }}
- name: tmp
  emptyDir:
    sizeLimit: 1Gi
{{- if eq .Values.role "site" }}
- name: data
  {{- toYaml .Values.site.data | nindent 2 }}
- name: shared-memory
  emptyDir:
    medium: Memory
    sizeLimit: {{ .Values.site.sharedMemory }}
{{- end }}
{{- end }}

{{- define "fedcervix.claimSpec" -}}
accessModes:
  - {{ .Values.home.accessMode }}
{{- with .Values.home.storageClass }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests:
    storage: {{ .Values.home.size }}
{{- end }}

{{/* Changes of the script start the pod again. */}}
{{- define "fedcervix.podMetadata" -}}
labels:
  {{- include "fedcervix.labels" . | nindent 2 }}
annotations:
  fedcervix/script: {{ .Files.Get "supervise.py" | sha256sum }}
  {{- with .Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
