package rules

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"towpath/manifest"
)

// values is what expressions see of a case.
type values struct{ bindings map[string]any }

func valuesOf(c Case) *values {
	object := plain(c.Object)
	pod := podSpec(object)
	if c.Object == nil {
		pod = podSpec(plain(c.Old))
	}
	return &values{map[string]any{
		"object": orNull(object), "oldObject": orNull(plain(c.Old)), "podSpec": orNull(pod), "containers": containers(pod), "operation": string(c.Operation),
		"application": c.Application, "target.name": c.Target.Name, "target.account": c.Target.Account, "target.namespace": c.Target.Namespace,
	}}
}

// with adds variables, each computed when it is first asked for.
func (v *values) with(variables []variable) cel.Activation {
	bindings := maps.Clone(v.bindings)
	facts, err := cel.NewActivation(bindings)
	if err != nil {
		panic(err) // a map of names
	}
	for _, each := range variables {
		bindings[inVariables+each.name] = func() ref.Val {
			value, _, err := each.program.Eval(facts)
			if err != nil {
				return types.NewErr("%s%s: %s", inVariables, each.name, told(err))
			}
			return value
		}
	}
	return facts
}

// orNull is an object as CEL sees it: null where there is none.
func orNull(fields map[string]any) any {
	if fields == nil {
		return nil
	}
	return fields
}

// hidden is what rules see of a Secret's values: what they are is nobody's business, and a message would tell it.
const hidden = "(hidden)"

// plain is an object with numbers as CEL knows them, and without what a Secret keeps; nil for none.
func plain(o *manifest.Object) map[string]any {
	if o == nil {
		return nil
	}
	fields := numbers(o.Map()).(map[string]any)
	if o.Group == "" && o.Kind == "Secret" {
		for _, part := range []string{"data", "stringData"} {
			if kept, ok := fields[part].(map[string]any); ok {
				for key := range kept {
					kept[key] = hidden
				}
			}
		}
	}
	return fields
}

// numbers makes whole numbers int and the others double.
func numbers(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			v[key] = numbers(inner)
		}
	case []any:
		for i, inner := range v {
			v[i] = numbers(inner)
		}
	case json.Number:
		if whole, err := v.Int64(); err == nil {
			return whole
		}
		float, _ := v.Float64() // too large: infinity
		return float
	}
	return value
}

// podSpec is the specification of the pods that an object makes, or is: by its form and not its kind, so that kinds of others count too. nil: it makes none.
func podSpec(object map[string]any) map[string]any {
	for _, path := range []string{"spec.template.spec", "spec.jobTemplate.spec.template.spec", "spec"} {
		at := object
		for _, key := range strings.Split(path, ".") {
			at, _ = at[key].(map[string]any)
		}
		if _, has := at["containers"].([]any); has {
			return at
		}
	}
	return nil
}

// containers of a pod, those that run before it and beside it for a while included.
func containers(pod map[string]any) []any {
	all := []any{}
	for _, list := range []string{"initContainers", "containers", "ephemeralContainers"} {
		some, _ := pod[list].([]any)
		all = append(all, some...)
	}
	return all
}

// told is an error of an evaluation in words that help whoever wrote the rule, or the object.
func told(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", " ")
	switch {
	case strings.Contains(text, "cost limit exceeded"):
		return fmt.Sprintf("it takes more than %d steps; the rule must ask for less", costLimit)
	case strings.HasPrefix(text, "no such key: "):
		return text + " (where it may be missing, the rule has to ask with .?NAME or has(…))"
	}
	return shorten(text)
}
