{{- define "towpath.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "towpath.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "towpath.labels" -}}
{{ include "towpath.selector" . }}
app.kubernetes.io/component: controller
app.kubernetes.io/part-of: towpath
app.kubernetes.io/version: {{ default .Chart.AppVersion .Values.image.tag | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{- define "towpath.image" -}}
{{- $image := required "image.repository: name the image that `make images REGISTRY=…` pushed, as in registry.example.com/towpath/towpath-controller" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $image .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "towpath.keysSecret" -}}
{{- default (printf "%s-keys" (include "towpath.fullname" .)) .Values.keys.existingSecret -}}
{{- end -}}

{{- define "towpath.tlsSecret" -}}
{{- default (printf "%s-tls" (include "towpath.fullname" .)) .Values.tls.existingSecret -}}
{{- end -}}

{{- /* Where the API is reached: as the configuration says, else as Ingress, Gateway or Service have it. */ -}}
{{- define "towpath.externalURL" -}}
{{- if .Values.config.externalURL -}}
{{- .Values.config.externalURL | trimSuffix "/" -}}
{{- else if and .Values.ingress.enabled .Values.ingress.hosts -}}
https://{{ (index .Values.ingress.hosts 0).host }}
{{- else if and .Values.gateway.enabled .Values.gateway.hostnames -}}
https://{{ index .Values.gateway.hostnames 0 }}
{{- else -}}
https://{{ include "towpath.fullname" . }}.{{ .Release.Namespace }}.svc{{ if ne (int .Values.service.port) 443 }}:{{ int .Values.service.port }}{{ end }}
{{- end -}}
{{- end -}}

{{- /* Where agents reach the hub. */ -}}
{{- define "towpath.hubAddress" -}}
{{- $agents := default dict .Values.config.agents -}}
{{- if $agents.address -}}
{{- $agents.address -}}
{{- else if and .Values.ingress.enabled .Values.ingress.hub.enabled -}}
{{ required "ingress.hub.host: name the host under which agents reach the hub" .Values.ingress.hub.host }}:443
{{- else if and .Values.gateway.enabled .Values.gateway.hub.enabled -}}
{{ index (required "gateway.hub.hostnames: name the host under which agents reach the hub" .Values.gateway.hub.hostnames) 0 }}:443
{{- else -}}
{{ include "towpath.fullname" . }}-hub.{{ .Release.Namespace }}.svc:{{ int .Values.hub.service.port }}
{{- end -}}
{{- end -}}

{{- /* The configuration as the controller reads it. */ -}}
{{- define "towpath.config" -}}
{{- $own := dict "externalURL" (include "towpath.externalURL" .) "listen" ":8080" "keyFile" (printf "/etc/towpath/keys/%s" .Values.keys.key) "data" "/var/lib/towpath/data" -}}
{{- $_ := set $own "agents" (dict "listen" ":8443" "address" (include "towpath.hubAddress" .)) -}}
{{- $tls := dict "certificate" "/etc/towpath/tls/tls.crt" "key" "/etc/towpath/tls/tls.key" -}}
{{- if .Values.tls.terminated }}{{ $_ := set $tls "terminated" true }}{{ end -}}
{{- $_ := set $own "tls" $tls -}}
{{- if .Values.database.existingSecret -}}
{{- $_ := set $own "databaseFile" (printf "/etc/towpath/database/%s" .Values.database.key) -}}
{{- $_ := set $own "peers" (dict "listen" ":8444" "address" "$POD_IP") -}}
{{- else -}}
{{- $_ := set $own "database" "sqlite:/var/lib/towpath/towpath.db" -}}
{{- end -}}
{{- if .Values.config.previews -}}
{{- $_ := set $own "previews" (dict "listen" ":8445") -}}
{{- end -}}
{{- if .Values.proxy.enabled -}}
{{- $_ := set $own "egress" (dict "proxy" true) -}}
{{- end -}}
{{- mergeOverwrite (deepCopy .Values.config) $own | toYaml -}}
{{- end -}}

{{- /* What only people can have meant otherwise. */ -}}
{{- define "towpath.check" -}}
{{- if gt (int .Values.replicaCount) 1 -}}
{{- if not .Values.database.existingSecret -}}
{{- fail "replicaCount: several controllers share a PostgreSQL database; name the Secret with its address in database.existingSecret" -}}
{{- else if .Values.persistence.enabled -}}
{{- fail "replicaCount: several controllers cannot share one volume, and with PostgreSQL there are only caches on it; set persistence.enabled: false" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.tls.terminated (not (hasPrefix "https://" (include "towpath.externalURL" .))) -}}
{{- fail "tls.terminated: a proxy speaks TLS for the API, and config.externalURL does not begin with https://" -}}
{{- end -}}
{{- if and .Values.tls.existingSecret .Values.tls.hosts -}}
{{- fail "tls.hosts: the certificate of tls.existingSecret is for the names that it is for; hosts are those of a certificate that the chart makes" -}}
{{- end -}}
{{- if and .Values.gateway.enabled (not .Values.gateway.parentRefs) -}}
{{- fail "gateway.parentRefs: name the Gateway that the routes belong to" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.hosts: name the host, and the paths that it serves" -}}
{{- end -}}
{{- if and .Values.proxy.enabled (not .Values.proxy.url) -}}
{{- fail "proxy.url: name the proxy" -}}
{{- end -}}
{{- end -}}
