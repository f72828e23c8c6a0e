package cluster

import (
	"context"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// Rehearse asks the API server about objects of a target that keys name, by dry runs: what admission, quotas and schemas would say of them, in their own words. A
// Deployment object is asked about as the ReplicaSet that it becomes. What cannot be asked about before other objects of the manifests are there, as their
// namespace or their kind comes with them, is left out; asked is how many were asked about.
func (c *Client) Rehearse(ctx context.Context, id rollout.Identity, objects []manifest.Object, keys []manifest.Key) (asked int, refused []rollout.RefusedObject, failure *rollout.Failure) {
	revised, err := c.reviser.Revise(id, objects)
	if err != nil {
		return 0, nil, &rollout.Failure{Class: rollout.Refused, Text: err.Error()}
	}
	brought := broughtBy(revised)
	var mu sync.Mutex
	var jobs []job
	try := func(key manifest.Key, o manifest.Object) {
		if !slices.Contains(keys, key) || brought.kinds[manifest.Key{Group: o.Group, Kind: o.Kind}] {
			return
		}
		jobs = append(jobs, func() ([]rollout.Live, error) {
			_, err := c.dryRun(ctx, o)
			if apierrors.IsNotFound(err) && brought.namespaces[o.Namespace] {
				return nil, nil
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				asked++
				return nil, nil
			}
			f := conceal(o, c.failure(key, err))
			if f.Class != rollout.Refused {
				return nil, f
			}
			asked++
			refused = append(refused, rollout.RefusedObject{Key: key, Text: f.Text})
			return nil, nil
		})
	}
	for _, o := range revised.Plain {
		try(o.Key, o)
	}
	for _, r := range revised.Revisions {
		try(r.Workload, r.ReplicaSet)
	}
	_, failure = c.all(jobs)
	slices.SortFunc(refused, func(a, b rollout.RefusedObject) int { return a.Key.Compare(b.Key) })
	return asked, refused, failure
}

// brought is what manifests bring that others of them need.
type brought struct {
	namespaces map[string]bool
	kinds      map[manifest.Key]bool // by group and kind
}

func broughtBy(revised Revised) brought {
	b := brought{map[string]bool{}, map[manifest.Key]bool{}}
	for _, o := range revised.Plain {
		switch {
		case o.Group == "" && o.Kind == "Namespace":
			b.namespaces[o.Name] = true
		case o.Rank() == manifest.RankDefinition:
			d := definitionOf(o)
			b.kinds[manifest.Key{Group: d.Spec.Group, Kind: d.Spec.Names.Kind}] = true
		}
	}
	return b
}
