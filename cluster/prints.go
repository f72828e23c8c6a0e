package cluster

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"towpath/manifest"
)

// print is what tells that an object is another than before, its status aside: it can be read off an object's metadata alone.
type print [16]byte

// printOf makes one. What somebody changes shows in who owns which field since when, and in the generation. Kinds that count no generations are told by
// their version, but for autoscalers, whose status is another one every few seconds.
func printOf(kind string, o metav1.Object) print {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %d %t", o.GetUID(), o.GetGeneration(), o.GetDeletionTimestamp() != nil)
	if o.GetGeneration() == 0 && kind != "HorizontalPodAutoscaler" {
		fmt.Fprintf(sum, " %q", o.GetResourceVersion())
	}
	for _, texts := range []map[string]string{o.GetLabels(), o.GetAnnotations()} {
		for _, name := range slices.Sorted(maps.Keys(texts)) {
			if !isStatus(name) {
				fmt.Fprintf(sum, " %q=%q", name, texts[name])
			}
		}
	}
	for _, m := range o.GetManagedFields() {
		if m.Subresource != "status" {
			text, _ := json.Marshal(m) // of texts and times
			sum.Write(text)
		}
	}
	return print(sum.Sum(nil)[:16])
}

// prints are those of objects that are known to be as they shall be: what we wrote, as the cluster answered, and what was compared. Safe for concurrent use.
type prints struct {
	mu    sync.Mutex
	known map[manifest.Key]print
}

// normal is a key under which prints and manifests meet: of a namespace that is not named, the default one.
func normal(key manifest.Key) manifest.Key {
	if key.Namespace == metav1.NamespaceDefault {
		key.Namespace = ""
	}
	return key
}

func (p *prints) note(key manifest.Key, o metav1.Object) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil {
		p.known = map[manifest.Key]print{}
	}
	p.known[normal(key)] = printOf(key.Kind, o)
}

func (p *prints) forget(key manifest.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.known, normal(key))
}

// is reports whether an object is known by this print.
func (p *prints) is(key manifest.Key, as print) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known, found := p.known[normal(key)]
	return found && known == as
}

// others lists the keys of a kind, in a namespace ("": all), that are known and not among those that are there.
func (p *prints) others(kind manifest.Key, there map[manifest.Key]bool) (keys []manifest.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.known {
		if key.Group == kind.Group && key.Kind == kind.Kind && (kind.Namespace == "" || key.Namespace == normal(kind).Namespace) && !there[key] {
			keys = append(keys, key)
		}
	}
	return keys
}
