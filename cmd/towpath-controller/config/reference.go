package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

var types = []any{Config{}, TLS{}, Agents{}, Peers{}, Previews{}, Source{}, Auth{}, Webhook{}, GitHub{}, GitHubs{}, App{}, Allow{}, Policies{}, Push{}, Role{}, Prune{}, Keep{}, Render{}, Charts{}, Credential{}, Secret{}, SOPS{}, Egress{}, TenantEgress{}, MetricProvider{}, MetricAuth{}, Datadog{}, NewRelic{}, HTTPMetric{}, Log{}}

// keysOf lists the keys of a type of this package.
func keysOf(name string) []string {
	var keys []string
	for _, v := range types {
		if t := reflect.TypeOf(v); t.Name() == name {
			for i := range t.NumField() {
				keys = append(keys, t.Field(i).Tag.Get("yaml"))
			}
		}
	}
	return keys
}

// fill sets the defaults that stand in the tags, in a struct and in those inside it.
func fill(v any) {
	value := reflect.ValueOf(v).Elem()
	for i := range value.NumField() {
		field, text := value.Field(i), value.Type().Field(i).Tag.Get("default")
		switch {
		case field.Kind() == reflect.Struct:
			fill(field.Addr().Interface())
		case text == "" || !field.IsZero():
		case field.Type() == reflect.TypeFor[time.Duration]():
			d, _ := time.ParseDuration(text)
			field.SetInt(int64(d))
		case field.Kind() == reflect.String:
			field.SetString(text)
		case field.CanInt():
			n, _ := strconv.ParseInt(text, 10, 64)
			field.SetInt(n)
		case field.CanFloat():
			n, _ := strconv.ParseFloat(text, 64)
			field.SetFloat(n)
		}
	}
}

// Reference is the reference page of the configuration.
func Reference() string {
	var out strings.Builder
	out.WriteString("# The controller's configuration\n\nOne YAML file, strict: an unknown key is an error. Secrets are only named as files, and read at each use. `towpath-controller --config FILE check`\nsays whether a file is good; repositories are reloaded on SIGHUP. Generated from the types; do not edit.\n\n| key | meaning | default |\n|---|---|---|\n")
	describe(&out, "", reflect.TypeFor[Config]())
	return out.String()
}

func describe(out *strings.Builder, prefix string, t reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, inner := prefix+f.Tag.Get("yaml"), f.Type
		if inner.Kind() == reflect.Slice {
			name, inner = name+"[]", inner.Elem()
		}
		def := f.Tag.Get("default")
		if f.Tag.Get("required") != "" {
			def = "required"
		}
		fmt.Fprintf(out, "| `%s` | %s | %s |\n", name, f.Tag.Get("doc"), strings.ReplaceAll(def, "*", "\\*"))
		if inner.Kind() == reflect.Struct {
			describe(out, name+".", inner)
		}
	}
}

// Schema is the JSON Schema (draft 2020-12) of the configuration.
func Schema() []byte {
	schema := schemaOf(reflect.TypeFor[Config]())
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["title"] = "Towpath controller configuration"
	text, err := json.MarshalIndent(schema, "", "  ")
	if err != nil {
		panic(err) // texts only
	}
	return append(text, '\n')
}

func schemaOf(t reflect.Type) map[string]any {
	switch {
	case t == reflect.TypeFor[time.Duration](), t.Kind() == reflect.String:
		return map[string]any{"type": "string"}
	case t.Kind() == reflect.Bool:
		return map[string]any{"type": "boolean"}
	case t.Kind() == reflect.Float64:
		return map[string]any{"type": "number"}
	case t.Kind() == reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem())}
	case t.Kind() != reflect.Struct:
		return map[string]any{"type": "integer"}
	}
	properties, required := map[string]any{}, []string{}
	for i := range t.NumField() {
		f := t.Field(i)
		property := schemaOf(f.Type)
		property["description"] = f.Tag.Get("doc")
		properties[f.Tag.Get("yaml")] = property
		if f.Tag.Get("required") != "" {
			required = append(required, f.Tag.Get("yaml"))
		}
	}
	schema := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		schema["required"] = required
	}
	return schema
}
