package cluster

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// RunHook makes the hook that a.Only names, in the place of one that was made for another deployment or event, unless that one is to stay. Called again for
// the same deployment and event it finds what it made. What may hold data is not made anew: it becomes what the manifest says.
func (c *Client) RunHook(ctx context.Context, id rollout.Identity, objects []manifest.Object, a rollout.Action) rollout.Outcome {
	key := a.Only[0]
	i := slices.IndexFunc(objects, func(o manifest.Object) bool { return o.Key == key })
	if i < 0 || !objects[i].IsHook() {
		return rollout.Outcome{Failure: &rollout.Failure{Class: rollout.Refused, Object: key, Text: "the manifests have no such hook"}}
	}
	live, err := c.runHook(ctx, id, objects[i], fmt.Sprintf("%s %s", id.Deployment, a.Event))
	if err != nil {
		return rollout.Outcome{Failure: c.failure(key, err)}
	}
	return rollout.Outcome{Live: []rollout.Live{live}}
}

// runHook makes a hook for a deployment and an event.
func (c *Client) runHook(ctx context.Context, id rollout.Identity, o manifest.Object, made string) (rollout.Live, error) {
	former, err := c.get(ctx, o.Key)
	if err != nil {
		return rollout.Live{}, err
	}
	if former != nil && former.GetAnnotations()[AnnotationHook] == made {
		return judge(o.Key, former), nil
	}
	if former != nil {
		if err := notOurs(id, o.Key, former); err != nil {
			return rollout.Live{}, err
		}
	}
	fields := owned(plain(o.Map()).(map[string]any), id)
	manifest.Ensure(manifest.Ensure(fields, "metadata"), "annotations")[AnnotationHook] = made
	if o.Precious() {
		applied, err := manifest.FromMap(fields, o.Source)
		if err != nil {
			return rollout.Live{}, err
		}
		lives, err := c.applyOne(ctx, applied)
		if err != nil {
			return rollout.Live{}, err
		}
		return lives[0], nil
	}
	if former != nil {
		if err := c.replaced(ctx, o, former); err != nil {
			return rollout.Live{}, err
		}
	}
	resource, _, err := c.resource(ctx, o.Key, o.Version)
	if err != nil {
		return rollout.Live{}, err
	}
	created, err := write(ctx, c, "hook "+o.Key.String(), func(ctx context.Context) (*unstructured.Unstructured, error) {
		return resource.Create(ctx, &unstructured.Unstructured{Object: fields}, metav1.CreateOptions{FieldManager: fieldManager})
	})
	if apierrors.IsAlreadyExists(err) {
		return rollout.Live{}, &rollout.Failure{Class: rollout.Trouble, Object: o.Key, Text: "somebody made it just now; it is looked at again"}
	}
	if err != nil {
		return rollout.Live{}, conceal(o, c.failure(o.Key, err))
	}
	return judge(o.Key, created), nil
}

// replaced removes a hook that was made before, unless that is under way, and waits until it is gone: a Job goes after its pods, so two never work at once.
func (c *Client) replaced(ctx context.Context, o manifest.Object, former *unstructured.Unstructured) error {
	if former.GetDeletionTimestamp() == nil {
		if !o.Hook().Goes("before-hook-creation") {
			return &rollout.Failure{Class: rollout.Refused, Object: o.Key,
				Text: "an earlier deployment made it, and its helm.sh/hook-delete-policy does not say before-hook-creation: remove it, or add that policy"}
		}
		if err := c.delete(ctx, removal{key: o.Key, uid: former.GetUID(), name: "hook " + o.Key.String()}); err != nil {
			return err
		}
	}
	waiting, cancel := c.within(ctx)
	defer cancel()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		still, err := c.get(ctx, o.Key)
		if err != nil {
			return err
		}
		if still == nil || still.GetUID() != former.GetUID() {
			return nil
		}
		select {
		case <-waiting.Done():
			return &rollout.Failure{Class: rollout.Trouble, Object: o.Key, Text: "the one that an earlier deployment made is still being removed"}
		case <-time.After(pause):
		}
	}
}

const (
	lastLines = 10
	logBytes  = 4 << 10 // of which the last lines are read
	logShown  = 500
)

// lastWords is the last lines of the log of a Job's newest pod, for people; "" where they cannot be read.
func (c *Client) lastWords(ctx context.Context, job *unstructured.Unstructured) string {
	pods, err := c.podsOf(ctx, job, explainable)
	if err != nil || len(pods) == 0 {
		return ""
	}
	newest := slices.MaxFunc(pods, func(a, b unstructured.Unstructured) int {
		return a.GetCreationTimestamp().Compare(b.GetCreationTimestamp().Time)
	})
	text, err := request(ctx, c, func(ctx context.Context) ([]byte, error) {
		return c.finder.RESTClient().Get().AbsPath("/api/v1/namespaces", newest.GetNamespace(), "pods", newest.GetName(), "log").
			Param("tailLines", strconv.Itoa(lastLines)).Param("limitBytes", strconv.Itoa(logBytes)).DoRaw(ctx)
	})
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return shown(strings.Join(lines, " ⏎ "), logShown)
}
