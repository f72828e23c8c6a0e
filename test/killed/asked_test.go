package killed

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"towpath/api"
	"towpath/internal/localstack"
	"towpath/internal/testkit/history"
	"towpath/internal/testkit/sopsfile"
	"towpath/render/sops"
)

const (
	least = 3 // pods that the autoscaler wants
	most  = 6 // that it would go up to
)

// scaled is a version of which an autoscaler makes three pods, where the manifest says two, and which reads a Secret.
func scaled(n int) string {
	return strings.NewReplacer("metadata: {labels: {app: web}}", "metadata: {labels: {app: web}, annotations: {localcluster/cpu: 50m}}",
		"envFrom: [{configMapRef: {name: web}}]", "envFrom: [{configMapRef: {name: web}}, {secretRef: {name: sealed}}], resources: {requests: {cpu: 100m}}").Replace(version(n)) + fmt.Sprintf(`
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: %d
  maxReplicas: %d
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
`, least, most)
}

// asked is what a world is asked for beside pods, and all that became of it.
type asked struct {
	key      sopsfile.Key
	settings string // of the controller
	history  *history.History
}

func ask(t *testing.T) *asked {
	listen, _, err := localstack.Free()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listen)
	a := &asked{key: sopsfile.NewKey(t)}
	a.settings = fmt.Sprintf("previews: {listen: %q, domain: \"previews.test:%s\"}\nsops: [{ageKeyFiles: [%q]}]\n", listen, port, a.key.File)
	return a
}

// secret is encrypted, and holds a text that tells versions apart.
func (a *asked) secret(t *testing.T, version int) string {
	return a.key.YAML(t, fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: sealed}\nstringData: {password: \"example.com/web:%d\"}\n", version), "^stringData$")
}

// watch begins once the autoscaler has made as many pods as it wants.
func (c *cutting) watch() {
	c.Helper()
	c.Await("the autoscaler's pods", func() (bool, error) {
		for _, ready := range c.Images("prod") {
			if ready == least {
				return true, nil
			}
		}
		return false, fmt.Errorf("%v", c.Images("prod"))
	})
	c.world.history = history.Follow(c.T, shared.Clusters["prod"].Kubeconfig, c.Namespace, history.Kinds{
		"secret": {Version: "v1", Resource: "secrets"},
		"set":    {Group: "apps", Version: "v1", Resource: "replicasets"},
		"scaler": {Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"},
	})
}

// judge holds what was asked for to wrong at each moment, and returns at how many.
func (a *asked) judge(t *testing.T) (moments int) {
	t.Helper()
	a.history.Judge(t, func(now history.State, _, _ string) string {
		moments++
		return wrong(now)
	})
	return moments
}

// wrong says what is wrong at a moment: a Secret that holds something else than the value of a version, fewer pods than the autoscaler wants, a revision of as
// many as it would go up to at most, or an autoscaler of what does not carry all pods. "" when all is well.
func wrong(now history.State) string {
	for name, secret := range now["secret"] {
		if value := password(secret); strings.HasPrefix(name, "sealed") && !plain.MatchString(value) {
			return fmt.Sprintf("Secret %s holds %q", name, value)
		}
	}
	var all int64
	for name, set := range now["set"] {
		count := wanted(set)
		if all += count; count >= most {
			return fmt.Sprintf("ReplicaSet %s has %d pods", name, count)
		}
	}
	if all < least {
		return fmt.Sprintf("all ReplicaSets have %d pods", all)
	}
	for name, scaler := range now["scaler"] {
		if kind, at := aim(scaler); kind == "ReplicaSet" && wanted(now["set"][at]) < least {
			return fmt.Sprintf("autoscaler %s scales ReplicaSet %s, which has %d pods", name, at, wanted(now["set"][at]))
		}
	}
	return ""
}

// A look that finds nothing proves nothing.
func TestWhatIsWrongWithWhatWasAskedForIsFound(t *testing.T) {
	t.Parallel()
	const rests, scales = "Deployment", "ReplicaSet"
	for name, c := range map[string]struct {
		password, at string
		old, new     int64
		want         string
	}{
		"all is well":                      {"example.com/web:7", scales, 3, 0, ""},
		"it rests, and two share":          {"example.com/web:7", rests, 2, 1, ""},
		"a placeholder":                    {sops.Prefix + strings.Repeat("0", 32), scales, 3, 0, fmt.Sprintf("Secret sealed-1 holds %q", sops.Prefix+strings.Repeat("0", 32))},
		"too few":                          {"example.com/web:7", rests, 2, 0, "all ReplicaSets have 2 pods"},
		"the maximum":                      {"example.com/web:7", rests, 3, 6, "ReplicaSet new has 6 pods"},
		"it scales what is on its way out": {"example.com/web:7", scales, 1, 3, "autoscaler web scales ReplicaSet old, which has 1 pods"},
	} {
		now, count := history.State{}, func(n int64) map[string]any { return map[string]any{"spec": map[string]any{"replicas": n}} }
		for _, o := range []struct {
			kind, name string
			object     map[string]any
		}{
			{"secret", "sealed-1", map[string]any{"data": map[string]any{"password": base64.StdEncoding.EncodeToString([]byte(c.password))}}},
			{"set", "old", count(c.old)}, {"set", "new", count(c.new)},
			{"scaler", "web", map[string]any{"spec": map[string]any{"scaleTargetRef": map[string]any{"kind": c.at, "name": "old"}}}},
		} {
			now.Set(o.kind, o.name, &unstructured.Unstructured{Object: o.object})
		}
		if got := wrong(now); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

var plain = regexp.MustCompile(`^example\.com/web:\d+$`)

func password(secret map[string]any) string {
	text, _, _ := unstructured.NestedString(secret, "data", "password")
	value, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return err.Error()
	}
	return string(value)
}

func wanted(set map[string]any) int64 {
	count, _, _ := unstructured.NestedInt64(set, "spec", "replicas")
	return count
}

func aim(scaler map[string]any) (kind, name string) {
	ref, _, _ := unstructured.NestedStringMap(scaler, "spec", "scaleTargetRef")
	return ref["kind"], ref["name"]
}

// asked is what Secrets hold in the end, and what the autoscaler scales.
func (c *cutting) asked() (lines []string) {
	c.Helper()
	for name, secret := range c.Objects("prod", "v1 secrets") {
		if strings.HasPrefix(name, "sealed") {
			lines = append(lines, fmt.Sprintf("Secret %s holds %s", hashes.ReplaceAllString(name, "-HASH"), password(secret.Object)))
		}
	}
	sets := c.Objects("prod", "apps/v1 replicasets")
	for name, scaler := range c.Objects("prod", "autoscaling/v2 horizontalpodautoscalers") {
		kind, at := aim(scaler.Object)
		line := fmt.Sprintf("autoscaler %s scales a %s", name, kind)
		if set := sets[at]; set != nil {
			containers, _, _ := unstructured.NestedSlice(set.Object, "spec", "template", "spec", "containers")
			line += fmt.Sprintf(" of %v", containers[0].(map[string]any)["image"])
		}
		lines = append(lines, line)
	}
	return lines
}

// links is those that a deployment has made, and how long each lasts.
func (c *cutting) links(deployment string) string {
	c.Helper()
	found, err := c.previews(deployment)
	if err != nil {
		c.Fatal(err)
	}
	var all []string
	for _, p := range found {
		all = append(all, fmt.Sprint(p.Service, " for ", p.Until.Sub(p.Made)))
	}
	return strings.Join(all, ", ")
}

func (c *cutting) previews(deployment string) ([]api.Preview, error) {
	var found struct{ Items []api.Preview }
	err := c.API.Call(c.Context(), http.MethodGet, "/deployments/"+deployment+"/previews", nil, &found)
	return found.Items, err
}

// approveLinked approves what waits beside the one link that its step makes, and that holds.
func approveLinked(run *course, d api.Deployment) {
	if _, _, ok := waits(d, "approval"); !ok {
		return
	}
	found, err := run.previews(d.ID)
	if err != nil {
		return // it died just then
	}
	if len(found) != 1 || !found[0].Holds || found[0].Address == "" {
		run.Errorf("who approves finds the links %+v", found)
	}
	approve(run, d)
}
