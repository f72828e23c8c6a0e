package main

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"
)

// threePods is a Deployment object as both sides deploy it.
const threePods = `apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  replicas: 3
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      containers: [{name: web, image: "registry.example.test/web:%[3]d"}]
`

// deployment is one Deployment object with three pods: from the webhook of a commit that changes its image until the deployment is SUCCEEDED, beside what
// the same cluster takes to make such an object ready for a client that creates it. That client has the easier part: its cluster stops no older pods.
func deployment(ctx context.Context, b *bench) error {
	s, err := b.appsSite(ctx)
	if err != nil {
		return err
	}
	client, err := s.client()
	if err != nil {
		return err
	}
	commit := func(n int) (time.Duration, error) {
		sent, err := s.push(ctx, "Change the image", map[string]string{"three/towpath.yaml": fmt.Sprintf(deploymentFile, "three"),
			"three/app.yaml": fmt.Sprintf(threePods, "three", appsNamespace, n)})
		if err != nil {
			return 0, err
		}
		ended, err := s.news.await(ctx, sent, "three")
		return ended.Sub(sent), err
	}
	if _, err := commit(0); err != nil { // the first makes lane and revision, and opens connections
		return err
	}
	disturbed := b.quiet.watch()
	var ours, plain samples
	for n := range b.count(25) {
		took, err := commit(n + 1)
		if err != nil {
			return err
		}
		ours = append(ours, took)
		if took, err = createPlain(ctx, client, n); err != nil {
			return err
		}
		plain = append(plain, took)
	}
	by := disturbed()
	b.results.add(by, figure{Name: "a Deployment object with 3 pods, webhook to SUCCEEDED, p50 over a plain client's", Value: ours.at(.5) - plain.at(.5), Unit: "ms", Goal: atMost(800),
		Detail: fmt.Sprintf("p50 %.0f ms against %.0f ms, %d times each", ours.at(.5), plain.at(.5), len(ours))})
	return nil
}

// createPlain creates the object, waits until its pods are available, and removes it.
func createPlain(ctx context.Context, client *kubernetes.Clientset, n int) (time.Duration, error) {
	var object appsv1.Deployment
	name := fmt.Sprintf("plain-%d", n)
	if err := yaml.Unmarshal(fmt.Appendf(nil, threePods, name, plainNamespace, n), &object); err != nil {
		return 0, err
	}
	deployments := client.AppsV1().Deployments(plainNamespace)
	began := time.Now()
	events, err := deployments.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return 0, err
	}
	defer events.Stop()
	if _, err := deployments.Create(ctx, &object, metav1.CreateOptions{}); err != nil {
		return 0, err
	}
	for event := range events.ResultChan() {
		d, ok := event.Object.(*appsv1.Deployment)
		if ok && d.Status.ObservedGeneration >= d.Generation && d.Status.AvailableReplicas == 3 {
			took := time.Since(began)
			return took, deployments.Delete(ctx, name, metav1.DeleteOptions{})
		}
	}
	return 0, fmt.Errorf("the watch of Deployment object %s ended before its pods were available", name)
}
