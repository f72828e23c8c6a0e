// Package diff says in what objects differ, for people to read: as YAML with its keys in order, so that only what means something else is shown, and without
// anything that is secret. It is pure.
package diff

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/utils/diff"
	"github.com/sergi/go-diff/diffmatchpatch"
	"sigs.k8s.io/yaml"

	"towpath/manifest"
)

// Kind says what becomes of an object.
type Kind string

// Kinds of change.
const (
	Added   Kind = "added"
	Changed Kind = "changed"
	Removed Kind = "removed"
)

// Change is one object that is another than before, and how.
type Change struct {
	Key  manifest.Key
	Kind Kind
	// Text is a unified diff of its YAML without a head: lines that begin with "+", "-" or a blank, and between parts that lie apart "@@". Values of Secrets are
	// never in it; where they differ it says so.
	Text string
	// Cut is how many lines the diff has that Text leaves out, to be no longer than a person reads.
	Cut int
}

const (
	context   = 3    // lines that are the same, around each that is not
	mostLines = 400  // of one Text
	mostRunes = 300  // of one line
	mostEqual = 5000 // lines of an object up to which it is compared line by line; beyond, it is shown as replaced
)

// Between lists what differs, the added first, then the changed and the removed, each by key. Objects that mean the same are left out, however they are
// written.
func Between(before, after []manifest.Object) (all []Change) {
	old := make(map[manifest.Key]manifest.Object, len(before))
	for _, o := range before {
		old[o.Key] = o
	}
	for _, o := range after {
		was, found := old[o.Key]
		delete(old, o.Key)
		switch {
		case !found:
			_, text := texts(nil, o.Map())
			all = append(all, change(o.Key, Added, "", text))
		case string(was.JSON) != string(o.JSON):
			if from, to := texts(was.Map(), o.Map()); from != to {
				all = append(all, change(o.Key, Changed, from, to))
			}
		}
	}
	for key, o := range old {
		text, _ := texts(o.Map(), nil)
		all = append(all, change(key, Removed, text, ""))
	}
	rank := map[Kind]int{Added: 0, Changed: 1, Removed: 2}
	slices.SortFunc(all, func(a, b Change) int {
		if a.Kind != b.Kind {
			return rank[a.Kind] - rank[b.Kind]
		}
		return a.Key.Compare(b.Key)
	})
	return all
}

// texts is an object before and after, as people read it; nil is nothing.
func texts(before, after map[string]any) (from, to string) {
	was, is := values(before), values(after)
	hide(before, func(string) string { return "(secret)" })
	hide(after, func(name string) string {
		if text, found := was[name]; found && text != is[name] {
			return "(secret, changed)"
		}
		return "(secret)"
	})
	return text(before), text(after)
}

func text(object map[string]any) string {
	if object == nil {
		return ""
	}
	strip(object)
	text, err := yaml.Marshal(object)
	if err != nil {
		return fmt.Sprintf("cannot be shown: %v\n", err)
	}
	return string(text)
}

// strip takes away what says nothing about an object.
func strip(object map[string]any) {
	delete(object, "status")
	meta, _ := object["metadata"].(map[string]any)
	delete(meta, "creationTimestamp")
	if annotations, ok := meta["annotations"].(map[string]any); ok {
		if delete(annotations, "kubectl.kubernetes.io/last-applied-configuration"); len(annotations) == 0 {
			delete(meta, "annotations")
		}
	}
}

// hide puts words in the place of a Secret's values.
func hide(object map[string]any, words func(name string) string) {
	if !isSecret(object) {
		return
	}
	hidden := map[string]any{}
	for name := range values(object) {
		hidden[name] = words(name)
	}
	delete(object, "stringData")
	if delete(object, "data"); len(hidden) > 0 {
		object["data"] = hidden
	}
}

func isSecret(object map[string]any) bool {
	return object["kind"] == "Secret" && object["apiVersion"] == "v1"
}

// values of a Secret by name, as pods read them.
func values(secret map[string]any) map[string]string {
	all := map[string]string{}
	if data, ok := secret["data"].(map[string]any); ok {
		for name, value := range data {
			text := fmt.Sprint(value)
			if plain, err := base64.StdEncoding.DecodeString(text); err == nil {
				text = string(plain)
			}
			all[name] = text
		}
	}
	if texts, ok := secret["stringData"].(map[string]any); ok {
		for name, value := range texts {
			all[name] = fmt.Sprint(value)
		}
	}
	return all
}

// change makes a unified diff of two texts.
func change(key manifest.Key, kind Kind, before, after string) Change {
	c := Change{Key: key, Kind: kind}
	var text strings.Builder
	shown := 0
	for _, line := range unified(before, after) {
		if shown++; shown > mostLines {
			c.Cut++
			continue
		}
		if runes := []rune(line); len(runes) > mostRunes {
			line = string(runes[:mostRunes]) + "…"
		}
		text.WriteString(line + "\n")
	}
	c.Text = text.String()
	return c
}

// unified is the lines of a unified diff.
func unified(before, after string) (out []string) {
	marked := markedLines(before, after)
	last := -1 // line that was shown last
	for i := range marked {
		near := slices.ContainsFunc(marked[max(i-context, 0):min(i+context+1, len(marked))], func(line string) bool { return line[0] != ' ' })
		if !near {
			continue
		}
		if i > last+1 {
			out = append(out, "@@")
		}
		out, last = append(out, marked[i]), i
	}
	return out
}

// markedLines is all lines of both texts, each with what becomes of it.
func markedLines(before, after string) (all []string) {
	add := func(mark, text string) {
		for line := range strings.Lines(text) {
			all = append(all, mark+strings.TrimSuffix(line, "\n"))
		}
	}
	if strings.Count(before, "\n") > mostEqual || strings.Count(after, "\n") > mostEqual {
		add("-", before)
		add("+", after)
		return all
	}
	for _, d := range diff.Do(before, after) {
		add(map[diffmatchpatch.Operation]string{diffmatchpatch.DiffDelete: "-", diffmatchpatch.DiffInsert: "+", diffmatchpatch.DiffEqual: " "}[d.Type], d.Text)
	}
	return all
}
