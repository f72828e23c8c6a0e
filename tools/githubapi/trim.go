package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// trim keeps the endpoints, the bodies of the webhooks, as components, and what they refer to.
func trim(description map[string]any, endpoints string) (map[string]any, error) {
	paths, bodies := map[string]any{}, map[string]any{}
	all, _ := description["paths"].(map[string]any)
	webhooks, _ := description["x-webhooks"].(map[string]any)
	for line := range strings.Lines(endpoints) {
		method, path, found := strings.Cut(strings.TrimSpace(line), " ")
		if !found || method == "#" {
			continue
		}
		if method == "WEBHOOK" {
			item, _ := webhooks[path].(map[string]any)
			told, _ := item["post"].(map[string]any)
			if told == nil {
				return nil, fmt.Errorf("GitHub's description has no webhook %s", path)
			}
			bodies[path] = bare(told["requestBody"], false)
			continue
		}
		item, _ := all[path].(map[string]any)
		operation := item[strings.ToLower(method)]
		if operation == nil {
			return nil, fmt.Errorf("GitHub's description has no %s %s", method, path)
		}
		kept, _ := paths[path].(map[string]any)
		if kept == nil {
			kept = map[string]any{}
			paths[path] = kept
		}
		kept[strings.ToLower(method)] = bare(operation, false)
	}
	components := map[string]any{"requestBodies": bodies}
	if err := follow([]any{paths, bodies}, description, components); err != nil {
		return nil, err
	}
	return map[string]any{"openapi": description["openapi"], "info": description["info"], "paths": paths, "components": components}, nil
}

// prose is said to people only.
var prose = []string{"description", "summary", "tags", "externalDocs", "example", "examples", "x-github", "x-octokit"}

// named are the keys whose values are objects of freely named things.
var named = []string{"properties", "patternProperties", "responses", "headers", "content"}

// bare is a part of the description without prose. names: its keys are names that GitHub gave, not words of OpenAPI.
func bare(part any, names bool) any {
	switch part := part.(type) {
	case []any:
		out := make([]any, len(part))
		for i, one := range part {
			out[i] = bare(one, false)
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for key, value := range part {
			switch {
			case names:
				out[key] = bare(value, false)
			case slices.Contains(prose, key):
			case key == "enum", key == "default", key == "discriminator":
				out[key] = value
			default:
				out[key] = bare(value, slices.Contains(named, key))
			}
		}
		return out
	}
	return part
}

// follow copies what a part refers to, and what that refers to.
func follow(part any, description, components map[string]any) error {
	switch part := part.(type) {
	case []any:
		for _, one := range part {
			if err := follow(one, description, components); err != nil {
				return err
			}
		}
	case map[string]any:
		if at, is := part["$ref"].(string); is {
			return refer(at, description, components)
		}
		for _, value := range part {
			if err := follow(value, description, components); err != nil {
				return err
			}
		}
	}
	return nil
}

func refer(at string, description, components map[string]any) error {
	steps := strings.Split(at, "/") // #/components/KIND/NAME
	if len(steps) != 4 || steps[1] != "components" {
		return fmt.Errorf("cannot follow the reference %s", at)
	}
	kind, name := steps[2], steps[3]
	kept, _ := components[kind].(map[string]any)
	if kept == nil {
		kept = map[string]any{}
		components[kind] = kept
	}
	if _, done := kept[name]; done {
		return nil
	}
	all, _ := description["components"].(map[string]any)
	ofKind, _ := all[kind].(map[string]any)
	part, found := ofKind[name]
	if !found {
		return fmt.Errorf("GitHub's description refers to %s, which it does not hold", at)
	}
	kept[name] = bare(part, false)
	return follow(kept[name], description, components)
}

// layOut writes each path and each component on a line of its own, so that a newer version shows what it changes.
func layOut(description map[string]any) ([]byte, error) {
	var out bytes.Buffer
	err := write(&out, description, map[string]int{"paths": 1, "components": 2})
	out.WriteByte('\n')
	return out.Bytes(), err
}

// write writes an object over several lines; deep says which of its values are written so too, and how many levels of them.
func write(out *bytes.Buffer, object map[string]any, deep map[string]int) error {
	out.WriteString("{\n")
	for i, key := range slices.Sorted(maps.Keys(object)) {
		if i > 0 {
			out.WriteString(",\n")
		}
		fmt.Fprintf(out, "%q: ", key)
		inner, is := object[key].(map[string]any)
		if levels := deep[key]; is && levels > 0 {
			below := map[string]int{}
			for name := range inner {
				below[name] = levels - 1
			}
			if err := write(out, inner, below); err != nil {
				return err
			}
			continue
		}
		text, err := json.Marshal(object[key])
		if err != nil {
			return err
		}
		out.Write(text)
	}
	out.WriteString("\n}")
	return nil
}
