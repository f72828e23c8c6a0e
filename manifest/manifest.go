// Package manifest holds a Kubernetes object as text with an identity: what render makes, store keeps sealed, and cluster applies.
// It is pure; it knows no kind beyond its name and says nothing about what an object does.
package manifest

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Key names an object inside one cluster. The version of its API is no part of it: apps/v1 and apps/v1beta1 name the same object.
type Key struct {
	Group     string `json:"group,omitempty"`     // "" is the core group
	Kind      string `json:"kind"`                // "Deployment"
	Namespace string `json:"namespace,omitempty"` // "": cluster-wide, or not said in the manifest
	Name      string `json:"name"`
}

// String is how people read a key: "Deployment.apps default/web".
func (k Key) String() string {
	kind := k.Kind
	if k.Group != "" {
		kind += "." + k.Group
	}
	if k.Namespace == "" {
		return kind + " " + k.Name
	}
	return kind + " " + k.Namespace + "/" + k.Name
}

// Compare orders keys by group, kind, namespace, name.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Group, o.Group), cmp.Compare(k.Kind, o.Kind), cmp.Compare(k.Namespace, o.Namespace), cmp.Compare(k.Name, o.Name))
}

// Object is one manifest. The zero value is no object; New makes one.
type Object struct {
	Key
	Version string          `json:"version"`          // of the API: "v1", "v1beta1"
	JSON    json.RawMessage `json:"json"`             // canonical: keys sorted, no blanks; numbers as they were written
	Source  string          `json:"source,omitempty"` // where it comes from, for messages: "apps/web/service.yaml:12"; no part of the digest
}

// APIVersion is group and version as a manifest writes them: "apps/v1", "v1".
func (o Object) APIVersion() string {
	if o.Group == "" {
		return o.Version
	}
	return o.Group + "/" + o.Version
}

// New reads one object from JSON text. It fails when the text is no object or lacks apiVersion, kind or metadata.name (generateName is refused:
// such an object would be a new one at each apply).
func New(text []byte, source string) (Object, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var fields map[string]any
	if err := decoder.Decode(&fields); err != nil {
		return Object{}, fmt.Errorf("%s: not a Kubernetes object: %w", source, err)
	}
	return FromMap(fields, source)
}

// FromMap is New for an object that is parsed already; it keeps no reference to fields.
func FromMap(fields map[string]any, source string) (Object, error) {
	o := Object{Source: source}
	apiVersion, _ := fields["apiVersion"].(string)
	o.Kind, _ = fields["kind"].(string)
	meta, _ := fields["metadata"].(map[string]any)
	o.Name, _ = meta["name"].(string)
	o.Namespace, _ = meta["namespace"].(string)
	switch {
	case apiVersion == "":
		return Object{}, fmt.Errorf("%s: not a Kubernetes object: apiVersion is missing", source)
	case o.Kind == "":
		return Object{}, fmt.Errorf("%s: not a Kubernetes object: kind is missing", source)
	case o.Name == "":
		return Object{}, fmt.Errorf("%s: %s has no metadata.name (generateName is not supported: it would make a new object at each apply)", source, o.Kind)
	}
	o.Version = apiVersion
	if group, version, ok := strings.Cut(apiVersion, "/"); ok {
		o.Group, o.Version = group, version
	}
	text, err := marshal(fields)
	if err != nil {
		return Object{}, fmt.Errorf("%s: %s %s: %w", source, o.Kind, o.Name, err)
	}
	o.JSON = text
	return o, nil
}

// Map parses the object anew; the caller may change what it gets.
func (o Object) Map() map[string]any {
	decoder := json.NewDecoder(bytes.NewReader(o.JSON))
	decoder.UseNumber()
	var fields map[string]any
	if err := decoder.Decode(&fields); err != nil {
		panic("manifest: object with text that New never wrote: " + err.Error())
	}
	return fields
}

// Digest names a set of objects by content, whatever their order and sources: "sha256:…". The digest of no objects is that of an empty set.
func Digest(objects []Object) string {
	sums := make([]string, len(objects))
	for i, o := range objects {
		sum := sha256.Sum256(o.JSON)
		sums[i] = string(sum[:])
	}
	slices.Sort(sums)
	all := sha256.New()
	for _, sum := range sums {
		all.Write([]byte(sum))
	}
	return "sha256:" + hex.EncodeToString(all.Sum(nil))
}

// marshal writes canonical JSON: encoding/json sorts the keys of maps; HTML escapes would only make diffs hard to read.
func marshal(fields map[string]any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(fields); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(out.Bytes()), nil
}
