package deployment

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode"
)

// Schema is the JSON Schema (draft 2020-12) of deployment files, for editors. It says what the shape of a file can say; Parse knows more rules (see
// docs/reference/deployment-file.md), and tolerates flaws of older files that the schema shows as errors.
func Schema() []byte {
	schema := fileShape().schema()
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["title"] = "Towpath deployment file"
	text, err := json.MarshalIndent(schema, "", "  ")
	if err != nil {
		panic(err) // texts only
	}
	return append(text, '\n')
}

func (s *shape) schema() map[string]any {
	switch s.kind {
	case object:
		return s.objectSchema()
	case mapping:
		return s.nullable(s.mappingSchema())
	case list:
		out := map[string]any{"type": "array", "items": s.item.schema()}
		if s.least > 0 {
			out["minItems"] = s.least
		}
		return s.nullable(out)
	case text:
		return map[string]any{"type": []any{"string", "number", "boolean", "null"}}
	case whole:
		out := map[string]any{"type": "integer", "minimum": s.least}
		if s.most > 0 {
			out["maximum"] = s.most
		}
		return out
	case decimal:
		return map[string]any{"type": "number"}
	case truth:
		return map[string]any{"type": "boolean"}
	case word:
		return s.wordSchema()
	}
	return map[string]any{}
}

func (s *shape) mappingSchema() map[string]any {
	out := map[string]any{"type": "object", "additionalProperties": s.item.schema()}
	if s.least > 0 {
		out["minProperties"] = s.least
	}
	return out
}

// wordSchema takes a word in any letter case; the enumeration is what editors offer.
func (s *shape) wordSchema() map[string]any {
	patterns := make([]string, len(s.words))
	for i, word := range s.words {
		patterns[i] = anyCase(word)
	}
	return map[string]any{"anyOf": []any{
		map[string]any{"enum": s.words},
		map[string]any{"type": "string", "pattern": "^(" + strings.Join(patterns, "|") + ")$"},
	}}
}

// anyCase is a regular expression of a word in any letter case, for readers of patterns that know no flags.
func anyCase(word string) string {
	var out strings.Builder
	for _, letter := range word {
		out.WriteString("[" + string(unicode.ToLower(letter)) + string(unicode.ToUpper(letter)) + "]")
	}
	return out.String()
}

func (s *shape) objectSchema() map[string]any {
	properties, required := map[string]any{}, []string{}
	for _, k := range s.keys {
		property := k.shape.schema()
		property["description"] = k.doc
		if k.void || k.means != "" {
			property["deprecated"] = true
		}
		if k.required {
			required = append(required, k.name)
		} else {
			orNull(property)
		}
		properties[k.name] = property
	}
	out := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if len(s.choice) > 0 {
		var choices []any
		for _, name := range s.choice {
			choices = append(choices, map[string]any{"required": []string{name}, "properties": map[string]any{name: map[string]any{"not": map[string]any{"type": "null"}}}})
		}
		out["oneOf"] = choices
	}
	if len(required) > 0 {
		out["required"] = required
	}
	return s.nullable(out)
}

// nullable lets nothing stand for a list, map or object that may be empty.
func (s *shape) nullable(schema map[string]any) map[string]any {
	if s.least == 0 && len(s.choice) == 0 && !s.needs() {
		orNull(schema)
	}
	return schema
}

// orNull lets a key be written without a value.
func orNull(schema map[string]any) {
	switch types := schema["type"].(type) {
	case string:
		schema["type"] = []any{types, "null"}
	case []any:
		if !slices.Contains(types, any("null")) {
			schema["type"] = append(types, "null")
		}
	}
	if choices, ok := schema["anyOf"].([]any); ok {
		schema["anyOf"] = append(choices, map[string]any{"type": "null"})
	}
}
