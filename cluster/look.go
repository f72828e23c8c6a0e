package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

var (
	replicaSetKind = manifest.Key{Group: "apps", Kind: "ReplicaSet"}
	podKind        = manifest.Key{Kind: "Pod"}
)

// Look reads afresh what is asked for; namespaces are those in which the target may have revisions. Nothing comes from a cache: each read is a quorum
// read. The messages of workloads that are not ready say why, in the words of kubelet and scheduler.
func (c *Client) Look(ctx context.Context, id rollout.Identity, read rollout.Read, namespaces []string) rollout.Look {
	var look rollout.Look
	var objects []*unstructured.Unstructured
	jobs := []job{func() (_ []rollout.Live, err error) {
		objects, err = c.fetch(ctx, read.Objects, LaneLabel(id))
		return nil, err
	}, func() (_ []rollout.Live, err error) {
		look.Workloads, err = c.read(ctx, read.Workloads, "")
		return nil, err
	}, func() (_ []rollout.Live, err error) {
		look.Others, err = c.read(ctx, read.Others, "")
		return nil, err
	}}
	if len(read.Fleets) > 0 {
		jobs = append(jobs, func() (_ []rollout.Live, err error) {
			look.Fleets, err = c.readFleets(ctx, read.Fleets)
			return nil, err
		})
	}
	switch {
	case read.Foreign:
		jobs = append(jobs, c.named(ctx, read.Workloads)...)
	case read.Revisions:
		for _, namespace := range namespaces {
			jobs = append(jobs, c.revisions(ctx, id, namespace)...)
		}
	}
	revisions, failure := c.all(jobs)
	if failure != nil {
		return rollout.Look{Failure: failure}
	}
	look.Revisions, look.Objects = revisions, judged(read.Objects, objects)
	if read.Foreign {
		look.Revisions = nil
		ours := ownerOf(id.Tenant, id.Application, id.Target)
		for _, live := range revisions {
			if live.Owner == ours {
				look.Revisions = append(look.Revisions, live)
			} else {
				look.Foreign = append(look.Foreign, live)
			}
		}
	}
	c.explain(ctx, look.Objects, objects)
	return look
}

// explained is how many workloads that are not ready have their pods read in one look, and young is how old one must be for it: most become ready before,
// and for those whose pods fail at once the watch on pods knows.
const (
	explained = 5
	young     = 5 * time.Second
)

// explain adds to workloads that are not ready why their pods are not, in words, and which StatefulSets wait for pods that will not become ready.
func (c *Client) explain(ctx context.Context, lives []rollout.Live, objects []*unstructured.Unstructured) {
	left := explained
	var jobs []job
	for i := range lives {
		live, object := &lives[i], objects[i]
		if live.Missing || live.Health == rollout.Healthy || !hasPods(live.Key) {
			continue
		}
		if live.Health != rollout.Broken && time.Since(object.GetCreationTimestamp().Time) < young && !c.watches.troubled(object.GetUID()) {
			continue
		}
		if left--; left < 0 {
			break
		}
		jobs = append(jobs, func() ([]rollout.Live, error) {
			if why := c.podTroubles(ctx, object); why != "" {
				live.Message += ": " + why
			}
			if live.Key.Kind == "Job" && live.Health == rollout.Broken {
				if words := c.lastWords(ctx, object); words != "" {
					live.Message += "; it said last: " + words
				}
			}
			if live.Key.Kind == "StatefulSet" {
				pods, err := c.stuckPods(ctx, object)
				live.Stuck = err == nil && len(pods) > 0
			}
			return nil, nil
		})
	}
	_, _ = c.all(jobs) // for people only: what could not be read is not told
}

// listed is from how many objects of one kind and namespace on a list is cheaper than reading each.
const listed = 4

// read reads objects afresh, in the order of the keys. With a lane, many of one kind and namespace are read by one list of the lane's objects.
func (c *Client) read(ctx context.Context, keys []manifest.Key, lane string) ([]rollout.Live, error) {
	objects, err := c.fetch(ctx, keys, lane)
	if err != nil {
		return nil, err
	}
	return judged(keys, objects), nil
}

func judged(keys []manifest.Key, objects []*unstructured.Unstructured) []rollout.Live {
	lives := make([]rollout.Live, len(keys))
	for i, object := range objects {
		if object == nil {
			lives[i] = rollout.Live{Key: keys[i], Missing: true}
			continue
		}
		lives[i] = judge(keys[i], object)
	}
	return lives
}

// fetch is read without a judgement; nil stands for what is not there.
func (c *Client) fetch(ctx context.Context, keys []manifest.Key, lane string) ([]*unstructured.Unstructured, error) {
	objects := make([]*unstructured.Unstructured, len(keys))
	var jobs []job
	for kind, places := range byKind(keys) {
		if lane != "" && len(places) >= listed {
			jobs = append(jobs, func() ([]rollout.Live, error) { return nil, c.fetchListed(ctx, kind, lane, keys, places, objects) })
			continue
		}
		for _, i := range places {
			jobs = append(jobs, func() (_ []rollout.Live, err error) {
				if objects[i], err = c.get(ctx, keys[i]); err != nil {
					return nil, c.failure(keys[i], err)
				}
				return nil, nil
			})
		}
	}
	if _, failure := c.all(jobs); failure != nil {
		return nil, failure
	}
	return objects, nil
}

// byKind groups the places of keys by kind and namespace.
func byKind(keys []manifest.Key) map[manifest.Key][]int {
	places := map[manifest.Key][]int{}
	for i, key := range keys {
		key.Name = ""
		places[key] = append(places[key], i)
	}
	return places
}

// get reads one object; nil when it is not there.
func (c *Client) get(ctx context.Context, key manifest.Key) (*unstructured.Unstructured, error) {
	return c.getAs(ctx, key, "")
}

// getAs is get in a version of the object's API; "" is the one that the cluster prefers.
func (c *Client) getAs(ctx context.Context, key manifest.Key, version string) (*unstructured.Unstructured, error) {
	resource, _, err := c.resource(ctx, key, version)
	if err != nil {
		return nil, err
	}
	object, err := request(ctx, c, func(ctx context.Context) (*unstructured.Unstructured, error) {
		return resource.Get(ctx, key.Name, metav1.GetOptions{})
	})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return object, err
}

func (c *Client) fetchListed(ctx context.Context, kind manifest.Key, lane string, keys []manifest.Key, places []int, objects []*unstructured.Unstructured) error {
	list, err := c.list(ctx, kind, LabelLane+"="+lane, 0)
	if err != nil {
		return c.failure(kind, err)
	}
	found := map[string]*unstructured.Unstructured{}
	for i := range list {
		found[list[i].GetName()] = &list[i]
	}
	for _, i := range places {
		objects[i] = found[keys[i].Name]
		if objects[i] == nil && keys[i].Kind == replicaSetKind.Kind && keys[i].Group == replicaSetKind.Group { // its label may have been taken away
			if objects[i], err = c.get(ctx, keys[i]); err != nil {
				return c.failure(keys[i], err)
			}
		}
	}
	return nil
}

// page is how many objects one answer of a list holds at most, and listable how many are read at all.
const (
	page     = 250
	listable = 10_000
)

// list reads the objects of a kind in a namespace that a selector names; at most limit of them when it is not 0.
func (c *Client) list(ctx context.Context, kind manifest.Key, selector string, limit int64) ([]unstructured.Unstructured, error) {
	resource, _, err := c.resource(ctx, kind, "")
	if err != nil {
		return nil, err
	}
	options := metav1.ListOptions{LabelSelector: selector, Limit: limit}
	if limit == 0 {
		options.Limit = page
	}
	var all []unstructured.Unstructured
	for {
		list, err := request(ctx, c, func(ctx context.Context) (*unstructured.UnstructuredList, error) { return resource.List(ctx, options) })
		if err != nil {
			return nil, err
		}
		if all = append(all, list.Items...); len(all) > listable {
			return nil, &rollout.Failure{Class: rollout.Refused, Object: kind, Text: fmt.Sprintf("there are more than %d of them with the labels %s", listable, selector)}
		}
		if options.Continue = list.GetContinue(); options.Continue == "" || limit != 0 {
			return all, nil
		}
	}
}

// named reads the managed ReplicaSets that run workloads of these names, whoever's they are.
func (c *Client) named(ctx context.Context, workloads []manifest.Key) (jobs []job) {
	names := map[string][]string{} // by namespace
	for _, key := range workloads {
		names[key.Namespace] = append(names[key.Namespace], short(nil, key.Name))
	}
	for namespace, named := range names {
		jobs = append(jobs, func() ([]rollout.Live, error) {
			return c.managed(ctx, namespace, fmt.Sprintf("%s in (%s)", LabelWorkload, strings.Join(named, ",")))
		})
	}
	return jobs
}

// revisions reads all managed ReplicaSets of a target in a namespace, but for those on their way out. Those without a lane's label, which are few if any, are
// read too: some may be the target's, and their pods would run on beside those that take over from them.
func (c *Client) revisions(ctx context.Context, id rollout.Identity, namespace string) []job {
	return []job{func() ([]rollout.Live, error) {
		return c.managed(ctx, namespace, LabelLane+"="+LaneLabel(id)+","+LabelWorkload)
	}, func() ([]rollout.Live, error) {
		lives, err := c.managed(ctx, namespace, LabelWorkload+",!"+LabelLane)
		ours := ownerOf(id.Tenant, id.Application, id.Target)
		return slices.DeleteFunc(lives, func(live rollout.Live) bool { return live.Owner != ours }), err
	}}
}

// managed is the managed ReplicaSets in a namespace that a selector names.
func (c *Client) managed(ctx context.Context, namespace, selector string) ([]rollout.Live, error) {
	kind := replicaSetKind
	kind.Namespace = namespace
	list, err := c.list(ctx, kind, selector, 0)
	if err != nil {
		return nil, c.failure(kind, err)
	}
	list = slices.DeleteFunc(list, func(set unstructured.Unstructured) bool { return set.GetDeletionTimestamp() != nil })
	lives := make([]rollout.Live, len(list))
	for i := range list {
		key := kind
		key.Name = list[i].GetName()
		lives[i] = judge(key, &list[i])
	}
	return lives, nil
}
