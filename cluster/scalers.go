package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// scalers is the autoscalers among objects that scale Deployment objects and StatefulSets of the same manifests.
func scalers(objects []manifest.Object) (all []rollout.Scaler) {
	for _, o := range objects {
		if !isScaler(o) {
			continue
		}
		ref := manifest.Child(o.Map(), "spec", "scaleTargetRef")
		workload := manifest.Key{Group: "apps", Kind: fmt.Sprint(ref["kind"]), Namespace: o.Namespace, Name: fmt.Sprint(ref["name"])}
		if (workload.Kind == "Deployment" || workload.Kind == "StatefulSet") && slices.ContainsFunc(objects, func(d manifest.Object) bool { return d.Key == workload }) {
			all = append(all, rollout.Scaler{Key: o.Key, Workload: workload})
		}
	}
	return all
}

func isScaler(o manifest.Object) bool {
	return o.Group == "autoscaling" && o.Kind == "HorizontalPodAutoscaler"
}

// aimed is an object of the manifests as it is with an action's aims.
func aimed(o manifest.Object, aims []rollout.Aim) (manifest.Object, error) {
	i := slices.IndexFunc(aims, func(a rollout.Aim) bool { return a.Scaler == o.Key })
	if i < 0 {
		return o, nil
	}
	fields := o.Map()
	manifest.Ensure(fields, "spec")["scaleTargetRef"] = scaleTarget(aims[i].At)
	return manifest.FromMap(fields, o.Source)
}

func scaleTarget(at manifest.Key) map[string]any {
	return map[string]any{"apiVersion": "apps/v1", "kind": at.Kind, "name": at.Name}
}

// aimAll aims autoscalers: those that shall rest, or those that shall scale.
func (c *Client) aimAll(ctx context.Context, aims []rollout.Aim, rest bool) *rollout.Failure {
	var jobs []job
	for _, a := range aims {
		if rest == (a.At.Kind == "Deployment") {
			jobs = append(jobs, func() ([]rollout.Live, error) { return nil, c.aimScaler(ctx, a) })
		}
	}
	_, failure := c.all(jobs)
	return failure
}

// aimScaler changes what an autoscaler is aimed at, as it was read. One that is not there comes with the manifests.
func (c *Client) aimScaler(ctx context.Context, a rollout.Aim) error {
	scaler, err := c.get(ctx, a.Scaler)
	switch {
	case err != nil:
		return c.failure(a.Scaler, err)
	case scaler == nil:
		return nil
	}
	if is, _, _ := unstructured.NestedStringMap(scaler.Object, "spec", "scaleTargetRef"); is["kind"] == a.At.Kind && is["name"] == a.At.Name {
		return nil
	}
	text, err := json.Marshal([]operation{{"test", "/spec/scaleTargetRef", manifest.Child(scaler.Object, "spec", "scaleTargetRef")}, {"replace", "/spec/scaleTargetRef", scaleTarget(a.At)}})
	if err != nil {
		return err
	}
	resource, _, err := c.resource(ctx, a.Scaler, "")
	if err != nil {
		return c.failure(a.Scaler, err)
	}
	scaler, err = write(ctx, c, "aim "+a.Scaler.String(), func(ctx context.Context) (*unstructured.Unstructured, error) {
		return resource.Patch(ctx, a.Scaler.Name, types.JSONPatchType, text, metav1.PatchOptions{FieldManager: fieldManager})
	})
	var status apierrors.APIStatus
	if errors.As(err, &status) && apierrors.IsInvalid(err) {
		return &rollout.Failure{Class: rollout.Trouble, Object: a.Scaler, Text: "somebody changed it between the read and the write; it is read again"}
	}
	if err != nil {
		return c.failure(a.Scaler, err)
	}
	c.prints.note(a.Scaler, scaler)
	return nil
}
