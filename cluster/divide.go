package cluster

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"towpath/cluster/traffic"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// Routes fills in what a file leaves out of routes: from the manifests, else from what the cluster has. A route that is not there, or that several may be
// meant by, is a failure.
func (c *Client) Routes(ctx context.Context, id rollout.Identity, objects []manifest.Object, wanted []rollout.Route) ([]rollout.Route, *rollout.Failure) {
	var all []rollout.Route
	for _, r := range wanted {
		found, err := traffic.Find(r, sources{ctx, c, objects})
		if err != nil {
			failure := c.failure(manifest.Key{}, err)
			if failure.Object == (manifest.Key{}) { // what Find itself says
				failure.Class, failure.Text = rollout.Refused, fmt.Sprintf("traffic cannot be divided in the cluster of %s: %s", id.Account, failure.Text)
			}
			return nil, failure
		}
		all = append(all, found)
	}
	return all, nil
}

// sources is objects as manifests have them, else as the cluster does.
type sources struct {
	ctx     context.Context
	cluster *Client
	objects []manifest.Object
}

func (s sources) Get(key manifest.Key) (traffic.Object, error) {
	for _, o := range s.objects {
		if normal(o.Key) == normal(key) {
			return plain(o.Map()).(map[string]any), nil
		}
	}
	live, err := s.cluster.get(s.ctx, key)
	switch {
	case err != nil:
		return nil, s.cluster.failure(key, err)
	case live == nil:
		return nil, nil
	}
	return live.Object, nil
}

func (s sources) List(kind manifest.Key) (all []traffic.Object, err error) {
	of := func(key manifest.Key) manifest.Key { key.Name = ""; return normal(key) }
	named := map[string]bool{}
	for _, o := range s.objects {
		if of(o.Key) == of(kind) {
			named[o.Name] = true
			all = append(all, plain(o.Map()).(map[string]any))
		}
	}
	kind.Name = ""
	lives, err := s.cluster.list(s.ctx, kind, "", 0)
	if err != nil {
		return nil, s.cluster.failure(kind, err)
	}
	for _, live := range lives {
		if !named[live.GetName()] {
			all = append(all, live.Object)
		}
	}
	return all, nil
}

// divide brings divisions about, part after part, of all of them at once since they may share a Service: the order is what keeps traffic from pods that are
// not ready.
func (c *Client) divide(ctx context.Context, id rollout.Identity, divisions []rollout.Division) *rollout.Failure {
	all, most := make([][]traffic.Part, len(divisions)), 0
	for i, d := range divisions {
		all[i] = traffic.Parts(d)
		most = max(most, len(all[i]))
	}
	for place := range most {
		for _, parts := range all {
			if place >= len(parts) {
				continue
			}
			if err := c.bring(ctx, id, parts[place]); err != nil {
				return c.failure(parts[place].Key, err)
			}
		}
	}
	return nil
}

// bring makes an object what it shall be, once what it leads to is ready. It is written as it was read, so that a late write of ours is a conflict.
func (c *Client) bring(ctx context.Context, id rollout.Identity, p traffic.Part) error {
	is, shall, err := c.shape(ctx, p)
	if err != nil || p.Shape != nil && reflect.DeepEqual(fieldsOf(is), shall) {
		return err
	}
	if len(p.Leads) > 0 {
		for _, lead := range p.Leads {
			if err := c.leads(ctx, lead); err != nil {
				return err
			}
		}
		if is, shall, err = c.shape(ctx, p); err != nil || p.Shape == nil {
			return err
		}
	}
	resource, _, err := c.resource(ctx, p.Key, "")
	if err != nil {
		return err
	}
	switch {
	case shall == nil:
		if is.GetLabels()[LabelLane] != LaneLabel(id) {
			return nil
		}
		return c.delete(ctx, removal{key: p.Key, uid: is.GetUID(), name: p.Key.String()})
	case is == nil:
		if shall["apiVersion"] == nil {
			mapping, err := c.kinds.mapping(ctx, p.Key, "")
			if err != nil {
				return err
			}
			shall["apiVersion"] = mapping.GroupVersionKind.GroupVersion().String()
		}
		is, err = write(ctx, c, "make "+p.Key.String(), func(ctx context.Context) (*unstructured.Unstructured, error) {
			return resource.Create(ctx, &unstructured.Unstructured{Object: owned(shall, id)}, metav1.CreateOptions{FieldManager: fieldManager})
		})
	default:
		is, err = write(ctx, c, "divide "+p.Key.String(), func(ctx context.Context) (*unstructured.Unstructured, error) {
			return resource.Update(ctx, &unstructured.Unstructured{Object: shall}, metav1.UpdateOptions{FieldManager: fieldManager})
		})
	}
	if err == nil {
		c.prints.note(p.Key, is)
	}
	return err
}

// shape reads an object and says what it shall be.
func (c *Client) shape(ctx context.Context, p traffic.Part) (is *unstructured.Unstructured, shall traffic.Object, err error) {
	if p.Shape == nil {
		return nil, nil, nil
	}
	if is, err = c.get(ctx, p.Key); err != nil && !errors.Is(err, errNotServed) { // a kind that the cluster does not serve has no objects
		return nil, nil, err
	}
	var from *unstructured.Unstructured
	if is == nil && p.From != (manifest.Key{}) {
		if from, err = c.get(ctx, p.From); err != nil {
			return nil, nil, err
		}
	}
	shall, err = p.Shape(fieldsOf(is.DeepCopy()), fieldsOf(from))
	if err != nil {
		return nil, nil, &rollout.Failure{Class: rollout.Refused, Object: p.Key, Text: err.Error()}
	}
	return is, shall, nil
}

func fieldsOf(o *unstructured.Unstructured) traffic.Object {
	if o == nil {
		return nil
	}
	return o.Object
}

// leads waits a while until a Service leads to the pods of a revision: as many as are ready, and at least one where it shall have any.
func (c *Client) leads(ctx context.Context, lead traffic.Lead) error {
	waiting, cancel := c.within(ctx)
	defer cancel()
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		why, err := c.reaches(ctx, lead)
		if err != nil || why == "" {
			return err
		}
		select {
		case <-waiting.Done():
			return &rollout.Failure{Class: rollout.Trouble, Object: lead.Service, Text: why}
		case <-time.After(pause):
		}
	}
}

var endpointKind = manifest.Key{Group: "discovery.k8s.io", Kind: "EndpointSlice"}

// reaches says how far a Service is from leading to a revision; "" when it does.
func (c *Client) reaches(ctx context.Context, lead traffic.Lead) (why string, err error) {
	set, err := c.get(ctx, lead.To.ReplicaSet)
	if err != nil {
		return "", c.failure(lead.To.ReplicaSet, err)
	}
	if set == nil {
		return "", nil
	}
	live := judge(lead.To.ReplicaSet, set)
	if live.Replicas == 0 {
		return "", nil
	}
	kind := podKind
	kind.Namespace = lead.Service.Namespace
	pods, err := c.list(ctx, kind, LabelHash+"="+lead.To.Hash, 0)
	if err != nil {
		return "", c.failure(kind, err)
	}
	kind = endpointKind
	kind.Namespace = lead.Service.Namespace
	endpoints, err := c.list(ctx, kind, "kubernetes.io/service-name="+lead.Service.Name, 0)
	if err != nil {
		return "", c.failure(kind, err)
	}
	reached := map[any]bool{}
	for _, slice := range endpoints {
		for _, endpoint := range manifest.Items(slice.Object["endpoints"]) {
			name := manifest.Child(endpoint, "targetRef")["name"]
			if manifest.Child(endpoint, "conditions")["ready"] != false && slices.ContainsFunc(pods, func(p unstructured.Unstructured) bool { return p.GetName() == name }) {
				reached[name] = true
			}
		}
	}
	if wanted := max(live.Ready, 1); len(reached) < int(wanted) {
		return fmt.Sprintf("it leads to %d of %d ready pods of %s so far", len(reached), wanted, lead.To.ReplicaSet), nil
	}
	return "", nil
}

// divided is an object of the manifests as it is while traffic is divided.
func divided(o manifest.Object, divisions []rollout.Division) (manifest.Object, error) {
	var fields map[string]any
	for _, d := range divisions {
		for _, p := range traffic.Parts(d) {
			if p.Shape == nil || normal(p.Key) != normal(o.Key) {
				continue
			}
			if fields == nil {
				fields = plain(o.Map()).(map[string]any)
			}
			shall, err := p.Shape(fields, nil)
			if err != nil {
				return o, fmt.Errorf("%s: %s: %w", o.Source, o.Key, err)
			}
			fields = shall
		}
	}
	if fields == nil {
		return o, nil
	}
	return manifest.FromMap(fields, o.Source)
}
