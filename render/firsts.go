package render

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"towpath/deployment"
)

// first gives, for a render with objects that come out differently each time, what it came to when it was first made of these inputs.
//
// The inputs are the target, its part of the file, and all that was read of the tree. The cluster's capabilities are not taken as they are: a password shall
// not change because a patch of Kubernetes was installed. What they do to other objects counts, for those are in the name as they are.
func (p *Pool) first(ctx context.Context, r Request, t Trace, objects []outObject) ([]outObject, error) {
	if p.config.Firsts == nil || !slices.ContainsFunc(objects, func(o outObject) bool { return o.Unstable }) {
		return objects, nil
	}
	name, err := inputs(r, t, objects)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(objects)
	if err != nil {
		return nil, err
	}
	kept, err := p.config.Firsts.Keep(ctx, name, text)
	if err != nil {
		return nil, fmt.Errorf("the first result of an unstable template: %w", err)
	}
	objects = nil
	return objects, json.Unmarshal(kept, &objects)
}

// inputs names what a render was made of.
func inputs(r Request, t Trace, objects []outObject) (string, error) {
	target := *r.File.Target(r.Target)
	said := struct {
		Version, Tenant, Application, Path string
		Name, Account, Namespace           string
		Context, Overrides                 any
		Manifests                          []deployment.Manifest
		Records                            []record
		Stable                             []outObject
		Unstable                           []string
	}{Version: version, Tenant: r.Tenant, Application: r.File.Application, Path: r.File.Path, Name: target.Name, Account: target.Account, Namespace: target.Namespace,
		Context: r.File.Context, Overrides: r.File.ContextOverrides, Records: slices.Clone(t.Records)}
	for _, m := range r.File.Manifests {
		if m.Applies(r.Target) {
			m.Position, m.Targets = deployment.Position{}, nil
			said.Manifests = append(said.Manifests, m)
		}
	}
	slices.SortFunc(said.Records, func(a, b record) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Kind, b.Kind)) })
	for _, o := range objects {
		if o.Unstable {
			said.Unstable = append(said.Unstable, o.identity())
		} else {
			said.Stable = append(said.Stable, o)
		}
	}
	slices.Sort(said.Unstable)
	text, err := json.Marshal(said)
	sum := sha256.Sum256(text)
	return "first:" + hex.EncodeToString(sum[:]), err
}

// identity is what an object is and where it is from; not its name, which may be what differs.
func (o outObject) identity() string {
	var is struct{ APIVersion, Kind string }
	if json.Unmarshal(o.JSON, &is) != nil {
		return o.Source
	}
	return fmt.Sprint(o.Source, is)
}
