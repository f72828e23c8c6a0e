package e2e

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/world"
)

// charted is a chart whose version deploys a workload, after a Job that migrates; how the Job ends is said by an annotation for its pods.
func charted(version int, ends string) gitserver.Files {
	return gitserver.Files{
		"shop/towpath.yaml":             strings.Replace(world.OnProd(`{canary: {steps: [{setWeight: {weight: 100}}]}}`, ""), "manifests: [{path: manifests}]", "manifests: [{helm: {path: chart}}]", 1),
		"shop/chart/Chart.yaml":         "apiVersion: v2\nname: shop\nversion: 1.0.0\n",
		"shop/chart/templates/web.yaml": workload("web", fmt.Sprint("example.com/web:", version)),
		"shop/chart/templates/migrate.yaml": fmt.Sprintf(`apiVersion: batch/v1
kind: Job
metadata:
  name: migrate
  annotations: {helm.sh/hook: "pre-install,pre-upgrade", helm.sh/hook-delete-policy: "before-hook-creation"}
spec:
  backoffLimit: 0
  template:
    metadata: {annotations: {localcluster/exit: %q}}
    spec: {restartPolicy: Never, containers: [{name: migrate, image: "example.com/migrate:%d"}]}
`, ends, version),
		"shop/chart/templates/told.yaml": `apiVersion: v1
kind: ConfigMap
metadata: {name: told, annotations: {helm.sh/hook: post-upgrade, helm.sh/hook-delete-policy: hook-succeeded}}
`,
		"shop/chart/templates/test.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: t, annotations: {helm.sh/hook: test}}\nspec: {containers: [{name: t, image: t}]}\n",
	}
}

func TestHooksOfAChartRunInARollout(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, charted(1, "0 after 0.2s"))
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	migrated := func() (uid, image string) {
		job := w.Objects("prod", "batch/v1 jobs")["migrate"]
		containers := job.Object["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)["containers"].([]any)
		return string(job.GetUID()), containers[0].(map[string]any)["image"].(string)
	}
	first, image := migrated()
	if image != "example.com/migrate:1" {
		t.Errorf("the Job runs %s", image)
	}
	d := w.Ended(w.Deployment("shop", w.Commit("version 2", charted(2, "0 after 0.2s"))).ID)
	expectState(t, d, "SUCCEEDED")
	second, image := migrated()
	if second == first || image != "example.com/migrate:2" {
		t.Errorf("the Job of version 2 runs %s; it was made anew: %v", image, second != first)
	}
	says(t, w, "prod: hook Job.batch "+w.Namespace+"/migrate runs")
	says(t, w, "prod: hook ConfigMap "+w.Namespace+"/told runs")
	if told, there := w.Objects("prod", "v1 configmaps")["told"]; there {
		t.Errorf("a hook that goes when it has succeeded is there: %v", told.Object)
	}

	failed := w.Ended(w.Deployment("shop", w.Commit("version 3", charted(3, "1 after 0.2s"))).ID)
	expectState(t, failed, "FAILED")
	if got := target(t, failed, "prod"); !strings.Contains(got.Why, "hook Job.batch "+w.Namespace+"/migrate: ") || !strings.Contains(got.Why, "it said last: localcluster: simulated container migrate of image example.com/migrate:3") {
		t.Errorf("prod is %s: %s", got.State, got.Why)
	}
	expectImages(t, w, "prod", map[string]int64{"example.com/web:2": 2})
}

func TestAHookThatRunsIsEndedWithItsDeployment(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, charted(1, "0 after 0.2s"))
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	running := func() (count int) {
		for _, pod := range w.Objects("prod", "v1 pods") {
			phase, _, _ := unstructured.NestedString(pod.Object, "status", "phase")
			if pod.GetLabels()["batch.kubernetes.io/job-name"] == "migrate" && phase == "Running" {
				count++
			}
		}
		return count
	}
	d := w.Deployment("shop", w.Commit("version 2", charted(2, "0 after 1h")))
	w.Await("the Job to run", func() (bool, error) { return running() == 1, nil })
	must(t, w, "deploy", "cancel", d.ID, "--reason", "wrong version")
	ended := w.Ended(d.ID)
	expectState(t, ended, "CANCELLED")
	if got := target(t, ended, "prod"); !strings.HasSuffix(got.Why, ": wrong version") {
		t.Errorf("prod is %s: %s", got.State, got.Why)
	}
	says(t, w, "prod: hook Job.batch "+w.Namespace+"/migrate is ended")
	if job, there := w.Objects("prod", "batch/v1 jobs")["migrate"]; there && job.GetDeletionTimestamp() == nil {
		t.Error("the Job runs on")
	}
	w.Await("the end of its pods", func() (bool, error) { return running() == 0, nil })
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 2})
}
