package cluster

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// census remembers for a moment what was found of each kind: all targets of a cluster are surveyed at once.
type census struct {
	turn  chan struct{}            // held while reading or asking
	known map[manifest.Key]counted // by kind and namespace; "": all
}

type counted struct {
	objects   []rollout.Labelled
	forbidden bool // the agent may not list it there
	at        time.Time
}

// censusHolds is how long what was found counts.
const censusHolds = 30 * time.Second

// Census lists the objects of whatever kind whose labels say that they are ours, each once, by lane and key. Only names and labels are read. Where the agent may
// not list a kind in the whole cluster it is asked for in these namespaces; what it may not list there either is not found. What was found counts for half
// a minute.
func (c *Client) Census(ctx context.Context, namespaces []string) ([]rollout.Labelled, error) {
	select {
	case c.census.turn <- struct{}{}:
		defer func() { <-c.census.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	maps.DeleteFunc(c.census.known, func(_ manifest.Key, old counted) bool { return c.clock().Sub(old.at) >= censusHolds })
	known, _, err := c.kinds.look(ctx, 0)
	if err != nil {
		return nil, c.failure(manifest.Key{}, err)
	}
	var found []rollout.Labelled
	for _, kind := range known.listed {
		mapping, err := known.mapper.RESTMapping(kind)
		if err != nil {
			continue // an API server behind this one that does not answer
		}
		everywhere, err := c.count(ctx, mapping, "")
		if err != nil {
			return nil, err
		}
		found = append(found, everywhere.objects...)
		if !everywhere.forbidden || mapping.Scope.Name() == meta.RESTScopeNameRoot {
			continue
		}
		for _, namespace := range namespaces {
			there, err := c.count(ctx, mapping, namespace)
			if err != nil {
				return nil, err
			}
			found = append(found, there.objects...)
		}
	}
	slices.SortFunc(found, func(a, b rollout.Labelled) int {
		return cmp.Or(cmp.Compare(a.Lane, b.Lane), a.Key.Compare(b.Key), b.Number-a.Number)
	})
	return slices.CompactFunc(found, func(a, b rollout.Labelled) bool { return a.Lane == b.Lane && a.Key == b.Key }), nil
}

// count lists what is ours of one kind; "" means in all namespaces.
func (c *Client) count(ctx context.Context, mapping *meta.RESTMapping, namespace string) (counted, error) {
	kind := manifest.Key{Group: mapping.GroupVersionKind.Group, Kind: mapping.GroupVersionKind.Kind, Namespace: namespace}
	if last, fresh := c.census.known[kind]; fresh {
		return last, nil
	}
	now := counted{at: c.clock()}
	options := metav1.ListOptions{LabelSelector: LabelLane, Limit: page}
	if kind.Group == "" && kind.Kind == "Pod" {
		options.LabelSelector += ",!" + LabelHash // those of revisions are theirs
	}
	for {
		list, err := request(ctx, c, func(ctx context.Context) (*metav1.PartialObjectMetadataList, error) {
			return c.names.Resource(mapping.Resource).Namespace(namespace).List(ctx, options)
		})
		if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
			now.forbidden = true
			break
		}
		if err != nil {
			return now, c.failure(kind, err)
		}
		for i := range list.Items {
			if labelled, ours := labelledOf(kind, &list.Items[i]); ours {
				now.objects = append(now.objects, labelled)
			}
		}
		if options.Continue = list.Continue; options.Continue == "" {
			break
		}
	}
	c.census.known[kind] = now
	return now, nil
}

// labelledOf reads an object's labels. What another object made and labelled like itself, the configuration copies of revisions, and hooks are nobody's
// manifest.
func labelledOf(kind manifest.Key, o metav1.Object) (rollout.Labelled, bool) {
	annotations := o.GetAnnotations()
	made := metav1.GetControllerOf(o) != nil || annotations[AnnotationCopyOf] != "" || annotations[AnnotationHook] != ""
	if annotations[AnnotationApplication] == "" || made {
		return rollout.Labelled{}, false
	}
	l := rollout.Labelled{Key: kind, Lane: o.GetLabels()[LabelLane], Tenant: annotations[AnnotationTenant], Application: annotations[AnnotationApplication],
		Target: annotations[AnnotationTarget]}
	l.Key.Namespace, l.Key.Name = o.GetNamespace(), o.GetName()
	if workload := annotations[AnnotationWorkload]; workload != "" && l.Key.Group == replicaSetKind.Group && l.Key.Kind == replicaSetKind.Kind {
		l.Key.Kind, l.Key.Name = "Deployment", workload
		l.Number = numberOf(annotations)
	}
	return l, true
}

// Survey says, for a target about which the store knows nothing, which of its objects differ from its manifests, and which objects in the cluster say that
// they are the target's. namespaces are those in which it may have objects.
func (c *Client) Survey(ctx context.Context, k rollout.Kept, objects []manifest.Object, namespaces []string) rollout.Look {
	_, drifts, failure := c.Compare(ctx, k, objects, nil)
	if failure != nil {
		return rollout.Look{Failure: failure}
	}
	all, err := c.Census(ctx, namespaces)
	if err != nil {
		return rollout.Look{Failure: c.failure(manifest.Key{}, err)}
	}
	look := rollout.Look{Drifts: drifts}
	named := map[manifest.Key]manifest.Key{} // as the manifests write it: with a namespace or without
	for _, o := range objects {
		named[normal(o.Key)] = o.Key
	}
	lane := LaneLabel(k.Identity)
	for _, l := range all {
		if l.Lane == lane {
			look.Claims = append(look.Claims, cmp.Or(named[normal(l.Key)], l.Key))
		}
	}
	return look
}
