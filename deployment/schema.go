package deployment

import (
	"encoding/json"
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
		return orNull(map[string]any{"type": "object", "additionalProperties": s.item.schema()})
	case list:
		out := map[string]any{"type": "array", "items": s.item.schema()}
		if s.least > 0 {
			out["minItems"] = s.least
			return out
		}
		return orNull(out)
	case text:
		return map[string]any{"type": []string{"string", "number", "boolean"}}
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
		return map[string]any{"enum": s.words}
	}
	return map[string]any{}
}

func (s *shape) objectSchema() map[string]any {
	properties, required := map[string]any{}, []string{}
	for _, k := range s.keys {
		property := k.shape.schema()
		property["description"] = k.doc
		if k.void || k.means != "" {
			property["deprecated"] = true
		}
		properties[k.name] = property
		if k.required {
			required = append(required, k.name)
		}
	}
	out := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if s.only {
		out["minProperties"], out["maxProperties"] = 1, 1
	}
	if len(required) > 0 {
		out["required"] = required
		return out
	}
	return orNull(out)
}

// orNull lets a key be written without a value.
func orNull(schema map[string]any) map[string]any {
	schema["type"] = []any{schema["type"], "null"}
	return schema
}
