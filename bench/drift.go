package main

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// healedFile is an application whose ConfigMaps are put back when somebody changes them.
const healedFile = `application: healed
targets: {prod: {account: prod, namespace: ` + appsNamespace + `, strategy: rolling, drift: heal}}
manifests: [{path: app.yaml}]
strategies: {rolling: {canary: {steps: [{setWeight: {weight: 100}}]}}}
`

// drift is how soon what a hand changes in a cluster is put back, among 10,000 objects that are watched.
func drift(ctx context.Context, b *bench) error {
	s, err := b.withApps(ctx, b.count(2000))
	if err != nil {
		return err
	}
	edits, text := b.count(30), "" // each of another object: who changes one again and again is put back less and less often
	for i := range edits {
		text += fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: healed-%d}\ndata: {value: right}\n---\n", i)
	}
	files := map[string]string{"healed/towpath.yaml": healedFile, "healed/app.yaml": text}
	sent, err := s.push(ctx, "Add an application that is held to Git", files)
	if err != nil {
		return err
	}
	if _, err := s.news.await(ctx, sent, "healed"); err != nil {
		return err
	}
	client, err := s.client()
	if err != nil {
		return err
	}
	maps := client.CoreV1().ConfigMaps(appsNamespace)
	pause(ctx, 10*time.Second) // for what follows a rollout
	disturbed := b.quiet.watch()
	var took samples
	for i := range edits {
		pause(ctx, time.Second)
		name := fmt.Sprintf("healed-%d", i)
		changes, err := maps.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		if err != nil {
			return err
		}
		edited, err := maps.Patch(ctx, name, types.MergePatchType, []byte(`{"data":{"value":"wrong"}}`), metav1.PatchOptions{FieldManager: "hand"})
		if err != nil {
			return err
		}
		began := time.Now()
		for edited != nil {
			select {
			case event := <-changes.ResultChan():
				object, ok := event.Object.(metav1.Object)
				if !ok || object.GetResourceVersion() == edited.ResourceVersion {
					continue
				}
				if now, err := maps.Get(ctx, name, metav1.GetOptions{}); err == nil && now.Data["value"] == "right" && now.ResourceVersion != edited.ResourceVersion {
					took = append(took, time.Since(began))
					edited = nil
				}
			case <-time.After(time.Minute):
				return fmt.Errorf("the change was not put back within a minute")
			}
		}
		changes.Stop()
	}
	b.results.add(disturbed(), figure{Name: fmt.Sprintf("hand edit to put back, %d objects watched, p95", s.apps*5), Value: took.at(.95), Unit: "ms", Goal: atMost(1000), Detail: took.String()})
	return ctx.Err()
}
