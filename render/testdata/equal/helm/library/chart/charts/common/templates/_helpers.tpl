{{- define "common.labels" -}}
app: {{ .Chart.Name }}
release: {{ .Release.Name }}
{{- end -}}
{{- define "common.config" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "common.name" . }}
  labels: {{- include "common.labels" . | nindent 4 }}
{{- end -}}
{{- define "common.name" }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 20 | trimSuffix "-" }}{{ end -}}
