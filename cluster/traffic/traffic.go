// Package traffic says what the objects of routers are while traffic is divided between two revisions of a workload: one file a kind of router. It is
// pure: it is given objects and returns what they shall be, with all that others have put into them. What is read and written when is cluster's.
package traffic

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// Annotations on objects while traffic is divided; none is left at the end.
const (
	AnnotationMade   = "towpath.dev/made"   // it was made for a rollout, and goes with it
	AnnotationBefore = "towpath.dev/before" // what the divided parts were before
)

// Labels by which pods of one revision are told from those of others.
const (
	LabelHash   = "pod-template-hash"        // Kubernetes' own
	LabelSubset = "armory-pod-template-hash" // what is added to the subsets of DestinationRules
)

// Object is the fields of a Kubernetes object.
type Object = map[string]any

// Part is one object that a division consists of.
type Part struct {
	Key  manifest.Key
	From manifest.Key // what it is made from where it is not there; zero: nothing is
	// Shape returns the object as it shall be; it may change the one that it is given. It is nil when it is not there, or shall not be. Without a Shape
	// nothing is written, and Leads is all.
	Shape func(is, from Object) (Object, error)
	// Leads is what must lead to ready pods before the object is written.
	Leads []Lead
}

// Lead is a Service and the revision whose pods it has to reach.
type Lead struct {
	Service manifest.Key
	To      rollout.Side
}

// lead is none where it is not said to what.
func lead(service manifest.Key, to rollout.Side) []Lead {
	if to.Hash == "" {
		return nil
	}
	return []Lead{{service, to}}
}

// Objects reads a target's objects: as its manifests have them, else as they are in the cluster.
type Objects interface {
	// Get returns nil when there is none.
	Get(key manifest.Key) (Object, error)
	// List returns all of a kind in a namespace.
	List(kind manifest.Key) ([]Object, error)
}

// router is one kind of router.
type router interface {
	// find fills in what the file leaves out.
	find(r rollout.Route, in Objects) (rollout.Route, error)
	// parts are the objects of a division, in the order in which they are written.
	parts(d rollout.Division) []Part
}

func routerOf(kind rollout.RouteKind) router {
	switch kind {
	case rollout.SMI:
		return smi{}
	case rollout.Istio:
		return istio{}
	}
	return gateway{}
}

// Find fills in what the file leaves out of a route. The error names what is not there, or what several may be meant by.
func Find(r rollout.Route, in Objects) (rollout.Route, error) { return routerOf(r.Kind).find(r, in) }

// Parts are the objects of a division, in the order in which they are to be written.
func Parts(d rollout.Division) []Part { return routerOf(d.Kind).parts(d) }

// absent is the error for an object that is needed.
func absent(key manifest.Key, field string) error {
	return fmt.Errorf("%s, which %s names, is neither in the manifests nor in the cluster", key, field)
}

func serviceKey(namespace, name string) manifest.Key {
	return manifest.Key{Kind: "Service", Namespace: namespace, Name: name}
}

// selectorOf is what a Service selects, the hash of a revision aside.
func selectorOf(service Object) map[string]string {
	selector := map[string]string{}
	for name, value := range manifest.Child(service, "spec", "selector") {
		if name != LabelHash {
			selector[name] = fmt.Sprint(value)
		}
	}
	return selector
}

// found fills in what a route's Service selects.
func found(r rollout.Route, field string, in Objects) (rollout.Route, error) {
	key := serviceKey(r.Namespace, r.Service)
	service, err := in.Get(key)
	if err != nil {
		return r, err
	}
	if service == nil {
		return r, absent(key, field)
	}
	r.Selector = selectorOf(service)
	return r, nil
}

// share gives the second of two items of a list its share of what both have together, and the first the rest. Where there are more, weights are counted by
// scale, and what the others have stays in proportion. A baseline has as much as the second, at the first one's cost.
func share(items []Object, first, second int, baseline Object, weight int, scale int64) []Object {
	whole := int64(100)
	if len(items) > 2 {
		whole = 0
		for i, item := range items {
			w, said := number(item["weight"])
			if !said {
				w = 1
			}
			if item["weight"] = w * scale; i == first || i == second {
				whole += w * scale
			}
		}
	}
	part := whole * int64(weight) / 100
	items[first]["weight"], items[second]["weight"] = whole-part, part
	if baseline == nil {
		return items
	}
	items[first]["weight"], baseline["weight"] = whole-2*part, part
	return append(items, baseline)
}

func number(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case float64:
		return int64(v), true
	}
	return 0, false
}

// before is the parts of an object as they were before it was divided, by name.
func before(o Object) map[string]any {
	parts := map[string]any{}
	if text, ok := manifest.Child(o, "metadata", "annotations")[AnnotationBefore].(string); ok {
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.UseNumber()
		_ = decoder.Decode(&parts) // what cannot be read was not written by us
	}
	return whole(parts).(map[string]any)
}

// note says in an object what a part was before, until a division is over.
func note(o Object, stage rollout.Stage, name string, part any) {
	parts := before(o)
	if parts[name] = part; stage == rollout.Whole {
		delete(parts, name)
	}
	if len(parts) > 0 {
		text, _ := json.Marshal(parts) // of what was read from JSON
		manifest.Ensure(manifest.Ensure(o, "metadata"), "annotations")[AnnotationBefore] = string(text)
		return
	}
	annotations := manifest.Child(o, "metadata", "annotations")
	if delete(annotations, AnnotationBefore); len(annotations) == 0 {
		delete(manifest.Child(o, "metadata"), "annotations")
	}
}

// made reports whether an object was made for a rollout.
func made(o Object) bool {
	_, found := manifest.Child(o, "metadata", "annotations")[AnnotationMade]
	return found
}

// whole turns numbers of JSON into what objects hold.
func whole(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			v[name] = whole(inner)
		}
	case []any:
		for i, inner := range v {
			v[i] = whole(inner)
		}
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		n, _ := v.Float64()
		return n
	}
	return v
}

// clone copies what JSON can say.
func clone[T any](v T) T {
	return copied(v).(T)
}

func copied(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, inner := range v {
			out[name] = copied(inner)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = copied(inner)
		}
		return out
	}
	return v
}

func list(items []Object) []any {
	all := make([]any, len(items))
	for i, item := range items {
		all[i] = item
	}
	return all
}

func named(items []Object, name string) int {
	return slices.IndexFunc(items, func(o Object) bool { return o["name"] == name })
}

func nameOf(o Object) string {
	name, _ := manifest.Child(o, "metadata")["name"].(string)
	return name
}
