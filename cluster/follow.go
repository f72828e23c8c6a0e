package cluster

import (
	"context"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"towpath/manifest"
)

// Moved is an object of ours that may be another than it shall be.
type Moved struct {
	Key   manifest.Key
	Lane  string // value of LabelLane; "" where it is not known any more
	Gap   bool   // it was not seen to move: it was found after a time in which nobody looked
	print print
}

// follower hears of each object of a kind that moves.
type follower struct {
	kind  manifest.Key // without a name; Namespace "" where all are watched
	heard func(Moved)
}

// Follow calls heard for each object with our labels, of a kind in a namespace, that is changed or deleted by somebody else, until stop is called. It uses
// the watches that rollouts use, and reads names and labels only. What happened while no watch was open is found by one list. heard must not block.
func (c *Client) Follow(ctx context.Context, kind manifest.Key, heard func(Moved)) (stop func(), err error) {
	within, cancel := c.within(ctx)
	defer cancel()
	mapping, err := c.kinds.mapping(within, kind, "")
	if err != nil {
		return nil, c.failure(kind, err)
	}
	f := &follower{kind: manifest.Key{Group: kind.Group, Kind: kind.Kind}, heard: heard}
	namespace := orDefault(kind.Namespace)
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		namespace = ""
	}
	// A listener of no lane keeps the watch open; it is woken by nothing but gaps, where following does its own work.
	idle := newWaker(func() {})
	at, leave, err := c.watches.follow(within, mapping.Resource, namespace, idle, f)
	if err != nil {
		idle.stop()
		return nil, c.failure(kind, err)
	}
	var once sync.Once
	return func() {
		once.Do(func() {
			c.watches.unfollow(at, f)
			leave()
			idle.stop()
		})
	}, nil
}

// tellMoved tells followers what a watch saw.
func (ws *watches) tellMoved(s *shared, event watch.Event, object metav1.Object) {
	ws.mu.Lock()
	followers := make([]*follower, 0, len(s.followers))
	for f := range s.followers {
		followers = append(followers, f)
	}
	ws.mu.Unlock()
	for _, f := range followers {
		key := f.kind
		key.Namespace, key.Name = object.GetNamespace(), object.GetName()
		if event.Type == watch.Deleted {
			ws.prints.forget(key)
			f.heard(Moved{Key: key, Lane: object.GetLabels()[LabelLane]})
			continue
		}
		if now := printOf(key.Kind, object); !ws.prints.is(key, now) {
			f.heard(Moved{Key: key, Lane: object.GetLabels()[LabelLane], print: now})
		}
	}
}

// catchUp lists what a watch sees, and tells a follower what is not known to be as it shall be, and what is known and gone.
func (ws *watches) catchUp(ctx context.Context, at place, f *follower) error {
	there := map[manifest.Key]bool{}
	options := metav1.ListOptions{LabelSelector: LabelLane, Limit: page}
	for {
		list, err := ws.names.Resource(at.resource).Namespace(at.namespace).List(ctx, options)
		if err != nil {
			return err
		}
		for i := range list.Items {
			key := f.kind
			key.Namespace, key.Name = list.Items[i].Namespace, list.Items[i].Name
			there[normal(key)] = true
			if now := printOf(key.Kind, &list.Items[i]); !ws.prints.is(key, now) {
				f.heard(Moved{Key: key, Lane: list.Items[i].Labels[LabelLane], Gap: true, print: now})
			}
		}
		if options.Continue = list.Continue; options.Continue == "" {
			break
		}
	}
	for _, key := range ws.prints.others(manifest.Key{Group: f.kind.Group, Kind: f.kind.Kind, Namespace: at.namespace}, there) {
		ws.prints.forget(key)
		f.heard(Moved{Key: key, Gap: true})
	}
	return nil
}

// Kinds lists, by kind and namespace, what manifests become in the cluster and can be followed: for a Deployment object its ReplicaSets, and nothing for what
// runs once.
func (c *Client) Kinds(objects []manifest.Object) []manifest.Key {
	var all []manifest.Key
	for _, o := range objects {
		key := manifest.Key{Group: o.Group, Kind: o.Kind, Namespace: o.Namespace}
		switch {
		case isDeployment(o):
			key.Kind = replicaSetKind.Kind
		case o.Group == "batch" && o.Kind == "Job":
			continue
		}
		if !slices.Contains(all, key) {
			all = append(all, key)
		}
	}
	return all
}
