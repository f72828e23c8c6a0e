{{ define "host" }}{{ .name }}:{{ .port }}{{ end }}
