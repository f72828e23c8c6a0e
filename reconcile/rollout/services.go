package rollout

import (
	"fmt"
	"maps"
	"slices"

	"towpath/manifest"
)

// ServicesOf names the Services that a blue/green way turns: in the target's namespace, else in that of its workloads.
func ServicesOf(w Way, namespace string, set Set) []manifest.Key {
	if w.BlueGreen == nil || len(set.Revisions) == 0 {
		return nil
	}
	var keys []manifest.Key
	for _, pair := range w.BlueGreen.Services {
		for _, name := range []string{pair.Active, pair.Preview} {
			if name != "" {
				keys = append(keys, service(name, namespace, set))
			}
		}
	}
	return keys
}

func service(name, namespace string, set Set) manifest.Key {
	if namespace == "" {
		namespace = set.Revisions[0].Workload.Namespace
	}
	return manifest.Key{Kind: "Service", Namespace: namespace, Name: name}
}

// Turns says why the Services of a way cannot turn; "" when they can. live is those that do not come with the manifests.
func Turns(w Way, namespace string, set Set, live []Live) string {
	_, why := pairsOf(w, namespace, set, live)
	return why
}

// paired is a Pair and its workload.
type paired struct {
	Pair
	workload manifest.Key
}

func pairsOf(w Way, namespace string, set Set, live []Live) (pairs []paired, why string) {
	if len(set.Revisions) == 0 {
		return nil, ""
	}
	for _, names := range w.BlueGreen.Services {
		p := paired{Pair: Pair{Active: service(names.Active, namespace, set)}}
		selector, why := set.selectorOf(p.Active, live)
		if why != "" {
			return nil, why
		}
		revision := set.selected(selector)
		if revision == nil {
			return nil, fmt.Sprintf("%s selects no pods of the manifests, or those of several workloads: its selector is %s", p.Active, labels(selector))
		}
		if names.Preview != "" {
			p.Preview = service(names.Preview, namespace, set)
			selector, why := set.selectorOf(p.Preview, live)
			if why != "" {
				return nil, why
			}
			if previewed := set.selected(selector); previewed == nil || previewed.Workload != revision.Workload {
				return nil, fmt.Sprintf("%s selects other pods than %s, whose preview it is: its selector is %s", p.Preview, p.Active, labels(selector))
			}
		}
		p.New, p.workload = revision.Hash, revision.Workload
		pairs = append(pairs, p)
	}
	return pairs, ""
}

func (s Set) selectorOf(key manifest.Key, live []Live) (selector map[string]string, why string) {
	if selector, comes := s.selector(key); comes {
		return selector, ""
	}
	for _, l := range live {
		if l.Key == key && !l.Missing {
			return l.Selector, ""
		}
	}
	return nil, fmt.Sprintf("%s, which the strategy turns, is neither in the manifests nor in the cluster", key)
}

func (s Set) selector(key manifest.Key) (map[string]string, bool) {
	for _, service := range s.Services {
		if service.Key == key {
			return service.Selector, true
		}
	}
	return nil, false
}

// selected is the revision whose pods a selector names, the hash of a revision aside; nil: none, or more than one.
func (s Set) selected(selector map[string]string) *Revision {
	var found *Revision
	for i, r := range s.Revisions {
		if len(selector) == 0 || !within(selector, r.Labels) {
			continue
		}
		if found != nil {
			return nil
		}
		found = &s.Revisions[i]
	}
	return found
}

// hashLabel is the label that tells the pods of revisions apart.
const hashLabel = "pod-template-hash"

func within(selector, labels map[string]string) bool {
	for name, value := range selector {
		if name != hashLabel && labels[name] != value {
			return false
		}
	}
	return true
}

func labels(selector map[string]string) string {
	if len(selector) == 0 {
		return "empty"
	}
	text := ""
	for _, name := range slices.Sorted(maps.Keys(selector)) {
		text += fmt.Sprintf(", %s=%s", name, selector[name])
	}
	return text[2:]
}
