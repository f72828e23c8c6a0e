{{- define "agent.fullname" -}}
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

{{- define "agent.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "agent.labels" -}}
{{ include "agent.selector" . }}
app.kubernetes.io/component: agent
app.kubernetes.io/part-of: towpath
app.kubernetes.io/version: {{ default .Chart.AppVersion .Values.image.tag | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{- define "agent.image" -}}
{{- $image := required "image.repository: name the image that `make images REGISTRY=…` pushed, as in registry.example.com/towpath/towpath-agent" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $image .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* What a reference of the value .name refers to, as YAML: secret and key, file, or text. */ -}}
{{- define "agent.reference" -}}
{{- $text := .text -}}
{{- if not $text -}}
{{- fail (printf "%s: refer to the credential that `towpath agent create` printed, as in encrypted:k8s!n:SECRET!k:KEY" .name) -}}
{{- end -}}
{{- $variable := regexFind "^(\\{\\{ *env\\.[A-Za-z_][A-Za-z0-9_]* *\\}\\}|\\$\\{[A-Za-z_][A-Za-z0-9_]*\\})$" $text -}}
{{- if hasPrefix "encrypted:k8s!" $text -}}
{{- $parts := dict -}}
{{- range rest (splitList "!" $text) -}}
{{- $_ := set $parts (substr 0 2 .) (substr 2 -1 .) -}}
{{- end -}}
{{- if or (ne (len $parts) 2) (not (get $parts "n:")) (not (get $parts "k:")) -}}
{{- fail (printf "%s: a Secret is referred to as encrypted:k8s!n:SECRET!k:KEY" .name) -}}
{{- end -}}
{{- dict "secret" (get $parts "n:") "key" (get $parts "k:") | toYaml -}}
{{- else if hasPrefix "encrypted:" $text -}}
{{- fail (printf "%s: the agent has no access to %s; let its operator or CSI driver write a Secret or a file, and refer to it: encrypted:k8s!n:SECRET!k:KEY, or file:/PATH" .name (regexFind "^encrypted:[a-z0-9-]+" $text | trimPrefix "encrypted:")) -}}
{{- else if $variable -}}
{{- $wanted := regexReplaceAll "^(\\{\\{ *env\\.|\\$\\{)|[} ]" $variable "" -}}
{{- $found := dict -}}
{{- range .variables -}}
{{- if eq .name $wanted -}}
{{- if dig "valueFrom" "secretKeyRef" "name" "" . -}}
{{- $found = dict "secret" .valueFrom.secretKeyRef.name "key" .valueFrom.secretKeyRef.key -}}
{{- else if and $.plain .value -}}
{{- $found = dict "text" .value -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $found -}}
{{- fail (printf "%s: podEnvironmentVariables has no %s that is taken from a Secret (valueFrom.secretKeyRef)" .name $wanted) -}}
{{- end -}}
{{- $found | toYaml -}}
{{- else if hasPrefix "file:/" $text -}}
{{- dict "file" (trimPrefix "file:" $text) | toYaml -}}
{{- else if .plain -}}
{{- dict "text" $text | toYaml -}}
{{- else -}}
{{- fail (printf "%s: a secret does not stand among values; put it into a Secret, and refer to it: encrypted:k8s!n:SECRET!k:KEY" .name) -}}
{{- end -}}
{{- end -}}

{{- define "agent.clientId" -}}
{{- $found := include "agent.reference" (dict "name" "clientId" "text" .Values.clientId "variables" .Values.podEnvironmentVariables "plain" true) -}}
{{- if (fromYaml $found).file -}}
{{- fail "clientId: a client id is no secret: write it here as it is, or refer to a Secret" -}}
{{- end -}}
{{- $found -}}
{{- end -}}

{{- define "agent.clientSecret" -}}
{{- include "agent.reference" (dict "name" "clientSecret" "text" .Values.clientSecret "variables" .Values.podEnvironmentVariables "plain" false) -}}
{{- end -}}

{{- /* Whether an authority beside the system's is to be trusted. */ -}}
{{- define "agent.ca" -}}
{{- if or .Values.hub.ca .Values.hub.caConfigMap .Values.hub.caSecret -}}
/etc/towpath/ca/{{ .Values.hub.caKey }}
{{- end -}}
{{- end -}}

{{- /* The agent's configuration file. */ -}}
{{- define "agent.config" -}}
{{- $ca := include "agent.ca" . -}}
{{- $id := include "agent.clientId" . | fromYaml -}}
{{- $secret := include "agent.clientSecret" . | fromYaml -}}
{{- $address := required "hub.address: name the controller's hub as `towpath agent create` prints it, HOST:PORT" .Values.hub.address -}}
{{- if and (not .Values.identity.issuer) (not .Values.identity.tokenURL) -}}
{{- fail "identity.issuer: name the issuer as `towpath agent create` prints it, https://HOST" -}}
{{- end -}}
{{- if and (not .Values.agentIdentifier) (not $id.secret) -}}
{{- fail "agentIdentifier: name the agent for which the credential was made, or put the name into the Secret, as key agent" -}}
{{- end -}}
{{- $config := dict "hub" (dict "address" $address) "listen" ":8080" "logLevel" .Values.log.level "logFormat" .Values.log.type -}}
{{- with .Values.agentIdentifier }}{{ $_ := set $config "agent" . }}{{ end -}}
{{- $identity := dict "audience" .Values.identity.audience "clientAuth" .Values.identity.clientAuth "clientSecretFile" (default "/etc/towpath/credential/client-secret" $secret.file) -}}
{{- range $key := list "issuer" "tokenURL" "resource" "scope" }}{{ with get $.Values.identity $key }}{{ $_ := set $identity $key . }}{{ end }}{{ end -}}
{{- with $id.text }}{{ $_ := set $identity "clientId" . }}{{ end -}}
{{- if $ca }}{{ $_ := set $config.hub "ca" $ca }}{{ if .Values.identity.hubCA }}{{ $_ := set $identity "ca" $ca }}{{ end }}{{ end -}}
{{- $_ := set $config "identity" $identity -}}
{{- if and (ne .Values.log.type "json") (not .Values.log.disableColor) }}{{ $_ := set $config "logColors" true }}{{ end -}}
{{- if not .Values.kubernetes.enableClusterAccountMode }}{{ $_ := set $config "kubernetes" (dict "off" true) }}
{{- else if .Values.kubernetes.readOnly }}{{ $_ := set $config "kubernetes" (dict "readOnly" true) }}{{ end -}}
{{- with .Values.targets }}{{ $_ := set $config "targets" . }}{{ end -}}
{{- $config | toYaml -}}
{{- end -}}

{{- /* What people do in pods, and what previews need. */ -}}
{{- define "agent.podRules" -}}
{{- $allowed := list -}}
{{- if .Values.kubernetes.exec }}{{ $allowed = append $allowed "pods/exec" }}{{ end -}}
{{- if .Values.kubernetes.attach }}{{ $allowed = append $allowed "pods/attach" }}{{ end -}}
{{- if .Values.kubernetes.portForward }}{{ $allowed = append $allowed "pods/portforward" }}{{ end -}}
{{- $rules := list -}}
{{- if $allowed }}{{ $rules = append $rules (dict "apiGroups" (list "") "resources" $allowed "verbs" (list "get" "create")) }}{{ end -}}
{{- if .Values.kubernetes.previews }}{{ $rules = append $rules (dict "apiGroups" (list "") "resources" (list "services/proxy") "verbs" (list "get" "create" "update" "patch" "delete")) }}{{ end -}}
{{- with $rules }}{{ toYaml . }}{{ end -}}
{{- end -}}
